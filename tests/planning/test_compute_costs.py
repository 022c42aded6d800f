"""FLOPs of an epoch by the histogram of a dataset's tokens, compared with random batches of such rows."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from greencore.dataset import PromptRow
from greencore.length_statistics import LengthCounter
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.data.held_out_rows import split_rows
from planning.compute_costs import RowCosts, estimate_workload
from store.database import Database
from store.repositories.models import ModelRepository
from store.tables import Dataset, TokenStatistics

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
COSTS = RowCosts((1e6, 1e3), (3e6, 3e3), {})


def padded(length: int) -> int:
    return -(-length // 8) * 8


@pytest.mark.parametrize(("batch_size", "max_length"), [(1, 512), (8, 512), (8, 64)])
def test_flops_by_token_counts_equal_those_of_shuffled_batches(
    database: Database, batch_size: int, max_length: int
) -> None:
    generator = random.Random(3)
    rows = [min(max(round(generator.lognormvariate(4, 0.6)), 4), 400) for _ in range(800)]
    lengths = LengthCounter()
    for row in rows:
        lengths.add(row)
    counts = {
        "rows": len(rows),
        "tokens": {"total": sum(rows), "max": max(rows)},
        "completion": {"total": sum(rows) // 2},
        "histogram": [{"up_to": bound, "rows": number} for bound, number in lengths.histogram()],
    }
    dataset = Dataset(
        id="ds", name="rows", format="jsonl", rows=len(rows), bytes=1, sha256="0", blob="0", created_at=NOW
    )
    with database.session() as session:
        session.add(dataset)
        session.flush()
        session.add(TokenStatistics(dataset_id="ds", model="m", asked_at=NOW, counts=counts))
        ModelRepository(session).put("m", parameters=1, tensors=1, rho_floor=0.3, costs=COSTS.to_json(), at=NOW)
        hyperparameters = Hyperparameters(
            batch_size=batch_size, max_length=max_length, eval_share=0, packing=False, group_by_length=False
        )
        found = estimate_workload(session, dataset, "m", "full", hyperparameters)

    shuffled = 0.0
    for _ in range(20):
        generator.shuffle(rows)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            shuffled += len(batch) * COSTS.full_flops(padded(min(max(batch), max_length))) / 20

    assert found.epoch_flops == pytest.approx(shuffled, rel=0.1)
    assert found.epoch_tokens == pytest.approx(sum(min(row, max_length) for row in rows), rel=0.04)
    assert shuffled / found.spread < found.epoch_flops < shuffled * found.spread


def test_logits_and_padding_that_a_job_leaves_out_are_not_estimated(database: Database) -> None:
    counts = {
        "rows": 512,
        "tokens": {"total": 512 * 96, "max": 256},
        "completion": {"total": 512 * 24},
        "histogram": [{"up_to": 64, "rows": 256}, {"up_to": 256, "rows": 256}],
    }
    dataset = Dataset(id="ds", name="rows", format="jsonl", rows=512, bytes=1, sha256="0", blob="0", created_at=NOW)
    costs = RowCosts((1e6, 2e5, 10.0), (3e6, 6e5, 30.0), {}, "learned")

    def predict(**settings: Any) -> float:
        given = Hyperparameters(batch_size=4, eval_share=0, **settings)
        return estimate_workload(session, dataset, "m", "full", given).epoch_flops

    with database.session() as session:
        session.add(dataset)
        session.flush()
        session.add(TokenStatistics(dataset_id="ds", model="m", asked_at=NOW, counts=counts))
        ModelRepository(session).put("m", parameters=1, tensors=1, rho_floor=0.3, costs=costs.to_json(), at=NOW)
        plain, learned = (predict(packing=False, group_by_length=False, logits=logits) for logits in ("all", "learned"))
        packed, grouped = predict(packing=True, group_by_length=False), predict(packing=False, group_by_length=True)
        assert learned < 0.9 * plain
        assert packed < 0.8 * learned
        assert grouped < 0.9 * learned
        assert predict(packing="auto", group_by_length="auto") == packed
        assert predict(packing=False, group_by_length="auto") == grouped


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
@pytest.mark.parametrize("eval_share", [0.0, 0.01, 0.1, 0.5])
def test_as_many_rows_are_held_out_as_the_split_holds_out(database: Database, rows: int, eval_share: float) -> None:
    training, held_out, _ = split_rows(
        [PromptRow(f"row {index}", "yes") for index in range(rows)], eval_share=eval_share, seed=0
    )
    dropped = 3  # rows of which nothing is learned are neither trained on nor held out
    lengths = {
        "rows": rows,
        "dropped_rows": dropped,
        "tokens": {"total": 8 * rows, "max": 8},
        "completion": {"total": 4 * rows},
        "histogram": [{"up_to": 8, "rows": rows}],
    }
    dataset = Dataset(
        id="ds", name="rows", format="jsonl", rows=rows + dropped, bytes=1, sha256="0", blob="0", created_at=NOW
    )
    with database.session() as session:
        session.add(dataset)
        session.flush()
        session.add(TokenStatistics(dataset_id="ds", model="m", asked_at=NOW, counts=lengths))
        ModelRepository(session).put("m", parameters=1, tensors=1, rho_floor=0.3, costs=COSTS.to_json(), at=NOW)
        found = estimate_workload(session, dataset, "m", "full", Hyperparameters(eval_share=eval_share))
    assert (found.training_rows, found.held_out_rows) == (len(training), len(held_out))
