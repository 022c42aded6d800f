"""Schedules of trained tensors."""

from benchmarks.training.frontier.schedules import BlocksInTurn, Everything, Phase, RandomBlocks, Suffix, find_boundary

BLOCKS = tuple(f"model.layers.{block}.mlp.weight" for block in range(6))
NAMES = ("model.embed_tokens.weight", *BLOCKS, "model.norm.weight")


def test_a_suffix_leaves_out_the_embedding_and_the_first_blocks() -> None:
    assert Suffix(4).plan(NAMES, steps=9, seed=0) == [Phase(0, (*BLOCKS[4:], "model.norm.weight"))]


def test_a_suffix_may_follow_a_share_of_the_steps_with_everything() -> None:
    first, second = Suffix(4, full_share=1 / 3).plan(NAMES, steps=10, seed=0)
    assert first == Phase(0, NAMES)
    assert second == Phase(4, (*BLOCKS[4:], "model.norm.weight"))


def test_random_blocks_are_drawn_by_the_seed_beside_what_is_outside_the_blocks() -> None:
    schedule = RandomBlocks(2, every=4)
    phases = schedule.plan(NAMES, steps=40, seed=0)
    assert [phase.first_step for phase in phases] == list(range(0, 40, 4))
    assert all(NAMES[0] in phase.names and NAMES[-1] in phase.names and len(phase.names) == 4 for phase in phases)
    assert len({phase.names for phase in phases}) > 1
    assert phases == schedule.plan(NAMES, steps=40, seed=0) != schedule.plan(NAMES, steps=40, seed=1)


def test_blocks_in_turn_start_at_the_output_and_begin_again() -> None:
    phases = BlocksInTurn(2, every=3).plan(NAMES, steps=11, seed=0)
    assert phases == [Phase(0, BLOCKS[4:]), Phase(3, BLOCKS[2:4]), Phase(6, BLOCKS[:2]), Phase(9, BLOCKS[4:])]


def test_the_boundary_is_below_everything_that_is_trained() -> None:
    assert find_boundary([*BLOCKS[4:], "model.norm.weight"]) == 4
    assert find_boundary(Everything().plan(NAMES, steps=1, seed=0)[0].names) == 0
    assert find_boundary([NAMES[0], BLOCKS[5]]) == 0
