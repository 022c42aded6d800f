"""Strategies that draw small profiles, for property tests of selections."""

from hypothesis import strategies as st

from greencore.backprop import Profile
from greencore.backprop.cost.profile import SharedCost, build_profile

AMOUNT = st.integers(0, 60)  # FLOPs of an operator


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Chains of blocks with parallel branches in them, as transformers have."""
    tensors: list[str] = []
    costs: dict[int, int] = {}
    above: list[tuple[set[int], int]] = []
    while len(tensors) < 8 and draw(st.booleans() if tensors else st.just(True)):
        first = len(tensors)
        branches = draw(st.integers(1, 3))
        for _ in range(branches):
            costs[1 << len(tensors)] = draw(AMOUNT)
            above.append(({len(tensors)}, draw(AMOUNT)))
            tensors.append(f"t{len(tensors)}")
        above.append((set(range(first, first + branches)), draw(AMOUNT)))
        for members, _ in above:
            if min(members) < first:
                members.update(range(first, first + branches))
    for members, flops in above:
        mask = sum(1 << member for member in members)
        costs[mask] = costs.get(mask, 0) + flops
    forward = draw(st.integers(1, 200))
    return build_profile(tuple((name, 1) for name in tensors), forward=forward, total=costs)


@st.composite
def graphs(draw: st.DrawFn) -> Profile:
    """Any graph at all: every node passes gradients on to later ones, and holds tensors or none."""
    size = draw(st.integers(2, 8))
    parents = [draw(st.sets(st.integers(0, node - 1), min_size=1, max_size=2)) for node in range(1, size)]
    below = [{node} for node in range(size)]
    for node in range(size - 1, 0, -1):
        for parent in parents[node - 1]:
            below[parent] |= below[node]
    holders = [node for node in range(size) for _ in range(draw(st.integers(0, 2)))][:8] or [size - 1]
    operators = [(below[node], draw(AMOUNT)) for node in range(1, size) for _ in parents[node - 1]]
    return _assemble(holders, operators, draw)


@st.composite
def encoder_decoders(draw: st.DrawFn) -> Profile:
    """A chain of decoder blocks, each with one or two tensors on a side branch that leads to the encoder."""
    blocks, encoder = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    holders: list[int] = []
    operators: list[tuple[set[int], int]] = []
    for block in range(blocks):
        deeper = set(range(block + 1, blocks))
        joined = set(range(100, 100 + encoder))
        operators += [(deeper | {block, 10 + block} | joined, draw(AMOUNT)), (deeper, draw(AMOUNT))]
        operators.append(({10 + block} | joined, draw(AMOUNT)))
        holders += [block] * draw(st.integers(0, 1)) + [10 + block] * draw(st.integers(1, 2))
    for layer in range(encoder):
        operators.append((set(range(100 + layer, 100 + encoder)), draw(AMOUNT)))
        holders.append(100 + layer)
    if draw(st.booleans()):  # an embedding that encoder and decoder share needs everything
        operators = [(served | {200}, flops) for served, flops in operators]
        holders.append(200)
    return _assemble(holders, operators, draw)


@st.composite
def conditional(draw: st.DrawFn, plain: st.SearchStrategy[Profile]) -> Profile:
    """A profile whose operators cost something else while one or two of its tensors are trained."""
    base = draw(plain)
    total = {cost.needed_by: cost.flops for cost in base.shared}
    total |= {1 << tensor: flops for tensor, flops in enumerate(base.exclusive)}
    conditions = {1 << draw(st.integers(0, len(base.tensors) - 1)) for _ in range(draw(st.integers(1, 2)))}
    changes = tuple(
        SharedCost(needed_by, draw(st.integers(-(flops // 2), 60)), when)
        for when in conditions
        for needed_by, flops in total.items()
        if draw(st.booleans())
    )
    names = tuple((tensor.name, 1) for tensor in base.tensors)
    return build_profile(names, forward=base.forward_flops, total=total, conditional=changes)


def _assemble(holders: list[int], operators: list[tuple[set[int], int]], draw: st.DrawFn) -> Profile:
    """A profile of a tensor at each of the nodes `holders`, and of operators that serve tensors at some nodes."""
    costs = {1 << tensor: draw(AMOUNT) for tensor in range(len(holders))}
    for served, flops in operators:
        mask = sum(1 << tensor for tensor, node in enumerate(holders) if node in served)
        if mask:
            costs[mask] = costs.get(mask, 0) + flops
    tensors = tuple((f"t{tensor}", 1) for tensor in range(len(holders)))
    return build_profile(tensors, forward=draw(st.integers(1, 200)), total=costs)
