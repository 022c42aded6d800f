"""The autograd graph of one step: which trained tensors lie below which of its nodes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from greencore.backprop.flops import OpFlops

Node = Any
"""A node of torch's autograd graph: `torch.autograd.graph.Node`, which torch does not type."""


@dataclass(frozen=True)
class NeededFlops:
    """FLOPs of a step beyond its forward pass, and the trained tensors that need them, as a bit mask.

    They are spent if a tensor of `needed_by` is trained and, where `when` is not None, one of `when` too. Those with a
    `when` may be negative: what is saved by doing the same in another way.
    """

    flops: OpFlops
    needed_by: int
    when: int | None = None


def node_of(tensor: torch.Tensor) -> Node:
    """The node that takes the tensor's gradient: the one that computed it, or a leaf's accumulator."""
    return torch.autograd.graph.get_gradient_edge(tensor).node


def is_leaf(node: Node) -> bool:
    """Whether the node accumulates a leaf's gradient, rather than computing others from it."""
    return hasattr(node, "variable")


def children_of(node: Node) -> list[Node]:
    """The nodes that receive the gradients which this node computes."""
    return [child for child, _ in node.next_functions if child is not None]


def nodes_below(roots: Collection[Node], *, stop: Collection[Node] = ()) -> list[Node]:
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
            stack.extend((child, False) for child in children_of(node) if child not in seen)
    return ordered


def reached_tensors(
    nodes: Sequence[Node], bits: Mapping[int, int], pinned: Collection[Node], everything: int
) -> dict[Node, int]:
    """For every node, the trained tensors at or below it, as a bit mask.

    `nodes` come as `nodes_below` orders them; `bits` maps the `id` of a trained leaf to its bit. A leaf without a bit
    and a `pinned` node get their gradient whatever is trained: `everything` stands for that.
    """
    reached: dict[Node, int] = {}
    for node in nodes:
        if is_leaf(node):
            reached[node] = bits.get(id(node.variable), everything)
            continue
        mask = everything if node in pinned else 0
        for child in children_of(node):
            mask |= reached[child]
        reached[node] = mask
    return reached
