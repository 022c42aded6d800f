"""The autograd graph of one step: which trained tensors lie below which of its nodes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from greencore.backprop.cost.operator_flops import OpFlops

Node = Any
"""A node of torch's autograd graph: `torch.autograd.graph.Node`, which torch does not type."""


@dataclass(frozen=True)
class BackwardFlops:
    """FLOPs of a step beyond its forward pass, and the trained tensors that need them, as a bit mask.

    They are spent if a tensor of `needed_by` is trained and, where `when` is not None, one of `when` too. Those with a
    `when` may be negative: what is saved by doing the same in another way.
    """

    flops: OpFlops
    needed_by: int
    when: int | None = None


def get_gradient_node(tensor: torch.Tensor) -> Node:
    """The node that takes the tensor's gradient: the one that computed it, or a leaf's accumulator."""
    return torch.autograd.graph.get_gradient_edge(tensor).node


def is_leaf(node: Node) -> bool:
    """Whether the node accumulates a leaf's gradient, rather than computing others from it."""
    return hasattr(node, "variable")


def get_child_nodes(node: Node) -> list[Node]:
    """The nodes that receive the gradients which this node computes."""
    return [child for child, _ in node.next_functions if child is not None]


def collect_reachable_nodes(roots: Collection[Node], *, stop: Collection[Node] = ()) -> list[Node]:
    """Every node at and below `roots`, each after all that it passes gradients to; nothing at or below `stop`."""
    seen = set(stop)
    ordered: list[Node] = []
    stack = [(root, False) for root in roots]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            ordered.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in get_child_nodes(node) if child not in seen)
    return ordered


def compute_reachable_tensors(
    nodes: Sequence[Node], bits: Mapping[int, int], always_needed: Collection[Node], all_tensors: int
) -> dict[Node, int]:
    """For every node, the trained tensors at or below it, as a bit mask.

    `nodes` come as `collect_reachable_nodes` orders them; `bits` maps the `id` of a trained leaf to its bit. A leaf
    without a bit
    and a `always_needed` node get their gradient whatever is trained: `all_tensors` stands for that.
    """
    reachable: dict[Node, int] = {}
    for node in nodes:
        if is_leaf(node):
            reachable[node] = bits.get(id(node.variable), all_tensors)
            continue
        mask = all_tensors if node in always_needed else 0
        for child in get_child_nodes(node):
            mask |= reachable[child]
        reachable[node] = mask
    return reachable
