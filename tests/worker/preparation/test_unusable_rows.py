"""Rows that a model cannot be trained on are named at preparation, wherever the shuffle puts them."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers

from greencore.training.models.loading import load_tokenizer
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import Job
from tests.greencore.training.conftest import small_model
from tests.greencore.training.data.chat_templates import ENDLESS, GEMMA
from tests.scheduler.stage import add_dataset, add_job, read_job
from worker.preparation.prepare import prepare_job

GOOD = [{"messages": [{"role": "user", "content": f"w{n}"}, {"role": "assistant", "content": "w1"}]} for n in range(3)]
SYSTEM = {"messages": [{"role": "system", "content": "w9"}, *GOOD[0]["messages"]]}
ALONE = {"messages": [{"role": "assistant", "content": "w9"}]}
INVISIBLE = {"prompt": "w1", "completion": "\u200b"}


@pytest.fixture
def prepared(settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose one model has a template without a system's turn, and whose tokenizer drops spaces of no width."""
    folder = small_model(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = GEMMA
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    tokenizer.save_pretrained(folder)
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(f'[small]\nsource = "{folder}"\nlicence = "CC0-1.0"\n')
    changed = settings.model_copy(update={"catalogue": catalogue})
    monkeypatch.setattr("worker.preparation.prepare.get_settings", lambda: changed)
    return changed


def prepare(
    database: Database,
    settings: Settings,
    rows: list[object],
    *,
    validation: Mapping[str, object] | None = None,
    **hyperparameters: object,
) -> Job:
    settings.datasets_dir.mkdir(parents=True, exist_ok=True)
    settings.dataset_file("rows").write_text("\n".join(map(json.dumps, rows)))
    job_id = add_job(
        database,
        JobStatus.VALIDATING,
        "X",
        model="small",
        method="full",
        hyperparameters={"epochs": 1, "eval_share": 0.5, **hyperparameters},
        dataset={"rows": 4, "blob": "rows"},
        validation_dataset_id=None if validation is None else add_dataset(database, validation),
    )
    prepare_job(job_id)
    return read_job(database, job_id)


@pytest.mark.fault(number=4)
@pytest.mark.fault(number=9)
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (SYSTEM, "messages: the model's chat template refuses a conversation: System role not supported"),
        (ALONE, "messages: there is no message before the assistant's"),
        (INVISIBLE, "completion: gives no tokens"),
    ],
)
def test_a_row_that_cannot_be_used_fails_the_job_with_its_line(
    prepared: Settings, database: Database, row: object, reason: str
) -> None:
    for line in (1, 2, 3, 4):  # two of the four are held out
        rows: list[object] = [*GOOD]
        rows.insert(line - 1, row)
        job = prepare(database, prepared, rows)
        assert job.status == "failed"
        assert job.error is not None
        assert job.error["field"] == "dataset"
        assert re.match(f"line {line}: {reason}", job.error["detail"])


def test_rows_of_which_nothing_is_learned_are_counted_at_preparation(prepared: Settings, database: Database) -> None:
    unlearned = {"messages": [*GOOD[0]["messages"], *GOOD[1]["messages"][:1], {**GOOD[1]["messages"][1], "weight": 0}]}

    def estimate(rows: Sequence[object], train_on: str) -> dict[str, Any]:
        job = prepare(database, prepared, [*rows], eval_share=0.0, batch_size=1, train_on=train_on)
        assert job.estimate is not None, job.error
        return job.estimate

    found = estimate([GOOD[0], unlearned, *GOOD[1:]], "last")
    assert (found["training_rows"], found["training_examples"], found["steps"]) == (3, 3, 3)
    assert (found["dropped_rows"], found["dropped_lines"]) == (1, [2])
    found = estimate([GOOD[0], unlearned, *GOOD[1:]], "assistant")
    assert (found["training_rows"], found["dropped_rows"], found["dropped_lines"]) == (4, 0, [])
    job = prepare(database, prepared, [unlearned, unlearned], eval_share=0.0, train_on="last")
    assert job.error is not None
    assert job.error["detail"].startswith("line 1: messages: nothing of it is learned, as of every other row")


def test_a_conversation_with_an_example_for_each_turn_takes_their_steps(
    prepared: Settings, database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = ENDLESS
    tokenizer.save_pretrained(folder)
    conversation = {"messages": [message for row in GOOD for message in row["messages"]]}
    job = prepare(database, prepared, [conversation, *GOOD], eval_share=0.0, batch_size=2)
    assert job.estimate is not None, job.error
    assert (job.estimate["training_rows"], job.estimate["training_examples"]) == (4, 6)
    assert job.estimate["steps"] == 3


@pytest.mark.fault(number=9)
def test_equal_rows_are_counted_at_preparation(prepared: Settings, database: Database) -> None:
    job = prepare(database, prepared, [GOOD[0], GOOD[0], GOOD[0], GOOD[1], GOOD[2]], eval_share=0.4)
    assert job.status == "queued"
    assert job.estimate is not None
    assert job.estimate["held_out_rows"] == 2
    assert job.estimate["held_out_duplicates"] > 0


def test_validation_rows_are_checked_at_preparation(prepared: Settings, database: Database) -> None:
    def prepare_with(validation: Sequence[object]) -> Job:
        prepared.datasets_dir.mkdir(parents=True, exist_ok=True)
        prepared.dataset_file("validation").write_text("\n".join(map(json.dumps, validation)))
        other = {"rows": len(validation), "blob": "validation"}
        return prepare(database, prepared, [*GOOD], validation=other, eval_share=0.0)

    job = prepare_with([GOOD[0], {"messages": [{"role": "user", "content": "w9"}, GOOD[0]["messages"][1]]}])
    assert job.estimate is not None
    assert (job.estimate["training_rows"], job.estimate["held_out_rows"]) == (3, 1)
    assert job.estimate["held_out_duplicates"] == 1

    for validation, reason in (
        ([{"text": "w1"}], "is a text row"),
        ([SYSTEM], "line 1"),
        ([GOOD[1]], "equals one that is trained on"),
    ):
        error = prepare_with(validation).error
        assert error is not None
        assert error["field"] == "validation_dataset"
        assert reason in error["detail"]
