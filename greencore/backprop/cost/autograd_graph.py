"""Autograd graph of one training step: its nodes, and the trained tensors reachable from each."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from greencore.backprop.cost.operator_flops import OpFlops

Node = Any
"""A node of torch's autograd graph: `torch.autograd.graph.Node`, which torch does not type."""

ANY_TENSOR = -1
"""Bit mask of every tensor."""


@dataclass(frozen=True)
class BackwardFlops:
    """FLOPs of a step beyond its plain forward pass, and the trained tensors that need them (bit masks).

    They are spent if a tensor of `needed_by` is trained and a tensor of `when` as well. With a `when` they may be
    negative: the saving of running other operators.
    """

    flops: OpFlops
    needed_by: int
    when: int = ANY_TENSOR


def get_gradient_node(tensor: torch.Tensor) -> Node:
    """Return the node that receives the tensor's gradient: its producer, or a leaf's accumulator."""
    return torch.autograd.graph.get_gradient_edge(tensor).node


def is_leaf(node: Node) -> bool:
    """Return whether the node accumulates the gradient of a leaf."""
    return hasattr(node, "variable")


def get_child_nodes(node: Node) -> list[Node]:
    """List the nodes that receive the gradients computed by this node."""
    return [child for child, _ in node.next_functions if child is not None]


def collect_reachable_nodes(roots: Collection[Node], *, stop: Collection[Node] = ()) -> list[Node]:
    """List the nodes reachable from `roots`, children before parents; the walk ends at the nodes of `stop`."""
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
    """Map each node to the trained tensors reachable from it, as a bit mask.

    `nodes` are ordered as by `collect_reachable_nodes`; `bits` maps the `id` of a trained leaf to its bit. A leaf
    without a bit and an `always_needed` node get a gradient whatever is trained: their mask is `all_tensors`.
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
