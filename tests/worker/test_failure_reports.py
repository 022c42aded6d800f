"""Errors as a job's owner reads them: unexpected exceptions' texts are in the log only."""

import errno
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import torch
from fastapi.testclient import TestClient
from jinja2 import TemplateError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select, text
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, StatementError

from api.main import create_app
from greencore.backprop import BudgetTooSmall, NotFinite, TraceError
from greencore.dataset import InvalidRow
from greencore.disk import DiskFull
from greencore.training.checkpoints.folder import CheckpointDamaged
from greencore.training.methods.baselines import BaselineError
from greencore.training.models.loading import ModelError
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.datasets import DatasetDeleted
from store.repositories.webhooks import WebhookRepository
from store.tables import Delivery
from tests.keys import bearer, new_key
from tests.scheduler.stage import START, events, read_job
from tests.worker.stage import queued_job
from worker.failure_reports import explain_error, redact_message
from worker.training.claim import train_job

pytestmark = pytest.mark.fault(number=25)

MARKER = "lease_token='s3cr3t-marker'"
SQL = f"UPDATE jobs SET lease_token = '{MARKER}'"
REFERENCE = "job=job_1 attempt=2"


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def not_valid() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python(MARKER)
    return caught.value


def not_utf8() -> UnicodeDecodeError:
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, MARKER)


UNEXPECTED: tuple[Exception, ...] = (
    RuntimeError(MARKER),
    ValueError(MARKER),
    KeyError(MARKER),
    TypeError(MARKER),
    AssertionError(MARKER),
    MemoryError(MARKER),
    RecursionError(MARKER),
    NotImplementedError(MARKER),
    LookupError(MARKER),
    PermissionError(errno.EACCES, MARKER, f"/srv/{MARKER}"),
    OSError(MARKER),
    FileNotFoundError(MARKER),
    ConnectionError(MARKER),
    TimeoutError(MARKER),
    not_valid(),
    not_utf8(),
    json.JSONDecodeError(MARKER, MARKER, 0),
    IntegrityError(SQL, {"token": MARKER}, Exception(MARKER)),
    ProgrammingError(SQL, {"token": MARKER}, Exception(MARKER)),
    DataError(SQL, {"token": MARKER}, Exception(MARKER)),
    StatementError(MARKER, SQL, {"token": MARKER}, Exception(MARKER)),
    ExceptionGroup(MARKER, [ValueError(MARKER)]),
    torch.cuda.CudaError(2) if torch.cuda.is_available() else RuntimeError(f"CUDA error: {MARKER}"),
    chained(RuntimeError(MARKER), BudgetTooSmall(0.1, 0.3)),
)
QUOTING: tuple[tuple[Exception, str], ...] = (
    (chained(ModelError(f"m cannot be loaded: {MARKER}"), OSError(MARKER)), "m cannot be loaded"),
    (chained(TraceError(f"M cannot be traced (ValueError: {MARKER})"), ValueError(MARKER)), "M cannot be traced"),
    (chained(DiskFull(f"no room for x: {MARKER}"), OSError(errno.ENOSPC, MARKER)), "no space left"),
    (OSError(errno.ENOSPC, MARKER, f"/srv/{MARKER}"), "no space left"),
    (OSError(errno.EDQUOT, MARKER), "no space left"),
    (torch.OutOfMemoryError(f"CUDA out of memory {MARKER}"), "batch_size"),
    (FileNotFoundError(errno.ENOENT, MARKER, f"/{MARKER}/rows.jsonl"), "upload the dataset again"),
    (FileNotFoundError(errno.ENOENT, MARKER, f"/{MARKER}/model.safetensors"), "model.safetensors is no longer on disk"),
)
DELIBERATE: tuple[Exception, ...] = (
    BudgetTooSmall(0.1, 0.3),
    ModelError("the model has 3/4 of its layers, and reads https://example.org/a/b"),
    BaselineError("bitfit finds no bias"),
    InvalidRow(3, "prompt", "expected text"),
    NotFinite("the loss of step 3 is nan"),
    DatasetDeleted("the dataset ds_1 has been deleted"),
    chained(
        ModelError("the template refuses a conversation: roles must alternate"), TemplateError("roles must alternate")
    ),
)


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
def test_an_unexpected_error_is_reported_without_its_text(error: Exception) -> None:
    explained = explain_error(error, reference=REFERENCE)

    assert "s3cr3t" not in json.dumps(explained)
    assert "UPDATE" not in json.dumps(explained)
    assert explained["title"] == "The run failed unexpectedly"
    assert REFERENCE in explained["detail"]


@pytest.mark.parametrize(("error", "words"), QUOTING, ids=lambda value: type(value).__name__)
def test_an_expected_error_keeps_its_message_but_not_a_quoted_cause(error: Exception, words: str) -> None:
    explained = explain_error(error, reference=REFERENCE)

    assert words in explained["detail"]
    assert "s3cr3t" not in json.dumps(explained)


@pytest.mark.parametrize("error", DELIBERATE, ids=lambda error: type(error).__name__)
def test_an_expected_error_keeps_its_message(error: Exception) -> None:
    assert explain_error(error, reference=REFERENCE)["detail"] == str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/data/models/m is no folder", "m is no folder"),
        ("the tokenizer in '/srv/data/models/m' has no end", "the tokenizer in 'm' has no end"),
        ("400 gCO2e/kWh and 1/3 of https://example.org/a/b", "400 gCO2e/kWh and 1/3 of https://example.org/a/b"),
    ],
)
def test_a_path_is_reduced_to_its_last_part(text: str, expected: str) -> None:
    assert redact_message(ModelError(text)) == expected


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.mark.parametrize(
    "error",
    [RuntimeError(SQL), IntegrityError(SQL, {"token": MARKER}, Exception(MARKER)), FileNotFoundError(MARKER)],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_run_hides_the_text_of_an_unexpected_exception(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception, logged: list[Any]
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr("worker.training.attempt.fine_tune", fails)
    with database.session() as session:
        WebhookRepository(session).add(owner="alice", url="https://example.org/", at=START)
    job_id = queued_job(database, worker_settings)

    train_job(job_id, settings=worker_settings)

    assert read_job(database, job_id).status is JobStatus.FAILED
    with TestClient(create_app(worker_settings), headers=bearer(new_key(worker_settings, "alice", "user"))) as client:
        pages = [client.get(path).text for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/events", "/jobs")]
        pages.append(client.get(f"/dashboard/jobs/{job_id}").text)
    with database.session() as session:
        payloads = [json.dumps(payload) for payload in session.scalars(select(Delivery.payload))]
    assert payloads
    for shown in [*pages, *payloads, *(json.dumps(event.data) for event in events(database, job_id))]:
        assert "s3cr3t" not in shown
    assert f"job={job_id} attempt=1" in pages[0]
    failed = next(line for line in logged if line["event"] == "attempt.failed")
    assert failed["exc_info"]


def test_no_error_of_the_database_holds_the_values_of_a_row(database: Database) -> None:
    with pytest.raises(ProgrammingError) as caught, database.session() as session:
        session.execute(text("SELECT no_such_column FROM jobs WHERE lease_token = :token"), {"token": "s3cr3t"})

    assert "s3cr3t" not in str(caught.value)


def test_a_damaged_checkpoint_is_reported_without_the_cause() -> None:
    damage = chained(CheckpointDamaged(f"manifest of step-3 cannot be read: {MARKER}"), ValueError(MARKER))

    assert redact_message(damage) == "manifest of step-3 cannot be read: ValueError, which is in the log"
