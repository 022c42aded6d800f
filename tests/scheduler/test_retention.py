"""Retention: expired files and rows are removed, and those that an open job or a client needs are kept."""

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.settings import Settings
from scheduler import retention
from scheduler.retention import remove_abandoned_uploads, remove_old_files, remove_old_rows
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import Artifact, Checkpoint, Delivery, IdempotencyKey, Job, Webhook
from tests.scheduler.stage import START, add_job, events, read_job

DAY = timedelta(days=1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"artifact_retention_days": 90.0, "checkpoint_retention_days": 30.0})


def job_with_files(database: Database, settings: Settings, status: JobStatus) -> str:
    """Add a job, ended at START if `status` is final, with a checkpoint and a result in its folder."""
    job_id = add_job(database, zone="FR")
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.status = status
        job.finished_at = None if status is JobStatus.RUNNING else START
        session.add(
            Checkpoint(
                job_id=job_id, name="checkpoint-5-1", attempt=1, step=5, epochs_done=1, bytes=1, created_at=START
            )
        )
        if status is JobStatus.SUCCEEDED:
            session.add(Artifact(job_id=job_id, name="model.safetensors", bytes=1, sha256="0", created_at=START))
    for name in ("checkpoint-5-1", *(["artifacts"] if status is JobStatus.SUCCEEDED else [])):
        folder = settings.job_dir(job_id) / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"0")
    return job_id


def left(settings: Settings, job_id: str) -> Sequence[str]:
    return sorted(path.name for path in settings.job_dir(job_id).iterdir())


def checkpoints(database: Database, job_id: str) -> int:
    with database.session() as session:
        return session.query(Checkpoint).filter_by(job_id=job_id).count()


def removals(database: Database, job_id: str) -> list[list[str]]:
    return [event.data["what"] for event in events(database, job_id) if event.type == "files.removed"]


def test_a_success_loses_its_checkpoints_soon_and_its_result_after_its_retention_time(
    database: Database, settings: Settings
) -> None:
    job_id = job_with_files(database, settings, JobStatus.SUCCEEDED)
    remove_old_files(database, settings, at=START + timedelta(minutes=59))
    assert left(settings, job_id) == ["artifacts", "checkpoint-5-1"]
    remove_old_files(database, settings, at=START + timedelta(minutes=61))
    assert left(settings, job_id) == ["artifacts"]
    assert checkpoints(database, job_id) == 0
    remove_old_files(database, settings, at=START + 90 * DAY)
    assert (left(settings, job_id), read_job(database, job_id).files_removed_at) == (["artifacts"], None)
    at = START + 91 * DAY
    remove_old_files(database, settings, at=at)
    remove_old_files(database, settings, at=at + DAY)
    assert (left(settings, job_id), read_job(database, job_id).files_removed_at) == ([], at)
    assert removals(database, job_id) == [["checkpoints"], ["result"]]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_checkpoints_of_a_failed_job_are_kept_for_checkpoint_retention_days(
    database: Database, settings: Settings, status: JobStatus
) -> None:
    job_id = job_with_files(database, settings, status)
    remove_old_files(database, settings, at=START + 30 * DAY)
    assert (left(settings, job_id), checkpoints(database, job_id)) == (["checkpoint-5-1"], 1)
    remove_old_files(database, settings, at=START + 31 * DAY)
    assert (left(settings, job_id), checkpoints(database, job_id)) == ([], 0)
    assert read_job(database, job_id).files_removed_at is None


def test_nothing_of_an_open_job_is_removed_nor_without_a_setting(database: Database, settings: Settings) -> None:
    running = job_with_files(database, settings, JobStatus.RUNNING)
    failed, succeeded = (
        job_with_files(database, settings, status) for status in (JobStatus.FAILED, JobStatus.SUCCEEDED)
    )
    forever = settings.model_copy(update={"artifact_retention_days": None, "checkpoint_retention_days": None})
    remove_old_files(database, forever, at=START + 3650 * DAY)
    assert left(settings, running) == left(settings, failed) == ["checkpoint-5-1"]
    assert left(settings, succeeded) == ["artifacts"]


def test_a_job_that_is_being_retried_keeps_its_files(database: Database, settings: Settings) -> None:
    job_id = job_with_files(database, settings, JobStatus.FAILED)
    with database.session() as session:
        session.query(Job).filter_by(id=job_id).with_for_update().one()
        remove_old_files(database, settings, at=START + 31 * DAY)
    assert left(settings, job_id) == ["checkpoint-5-1"]


def test_files_that_a_crash_left_behind_are_removed_later(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = job_with_files(database, settings, JobStatus.SUCCEEDED)
    at = START + 91 * DAY

    def crash(*_: object) -> Path:
        raise OSError("the machine stops")

    with monkeypatch.context() as broken:
        broken.setattr(retention, "_move_aside", crash)
        with pytest.raises(OSError, match="stops"):
            remove_old_files(database, settings, at=at)
    assert (checkpoints(database, job_id), read_job(database, job_id).files_removed_at) == (1, None)
    with monkeypatch.context() as broken:
        broken.setattr(retention, "_remove", crash)
        with pytest.raises(OSError, match="stops"):
            remove_old_files(database, settings, at=at)
    assert (left(settings, job_id), read_job(database, job_id).files_removed_at) == ([], at)
    assert list((settings.data_dir / "removed").iterdir()) != []
    remove_old_files(database, settings, at=at)
    assert list((settings.data_dir / "removed").iterdir()) == []
    assert removals(database, job_id) == [["checkpoints", "result"]]


def test_folders_of_deleted_jobs_and_interrupted_uploads_are_removed_after_a_day(
    database: Database, settings: Settings
) -> None:
    old, new = settings.job_dir("job_gone"), settings.job_dir("job_new")
    part, rows = settings.datasets_dir / "ds_1.part", settings.datasets_dir / "rows.jsonl"
    upload = settings.datasets_dir / "incoming" / "upload_1"
    for folder in (old, new, upload):
        folder.mkdir(parents=True)
    for file in (part, rows, upload / "rows"):
        file.write_text("{}")
    long_ago = (START - 2 * DAY).timestamp()
    for path in (old, part, rows, upload):
        os.utime(path, (long_ago, long_ago))
    os.utime(new, (START.timestamp(), START.timestamp()))
    remove_old_files(database, settings, at=START)
    remove_abandoned_uploads(settings, at=START)
    assert [path.exists() for path in (old, new, part, rows, upload)] == [False, True, False, True, False]


def test_idempotent_responses_and_ended_deliveries_are_deleted(database: Database, settings: Settings) -> None:
    job_id = add_job(database)
    with database.session() as session:
        session.add(Webhook(id="wh_1", owner="alice", url="https://example.org", created_at=START))
        session.flush()
        for number, (made, due) in enumerate(
            [(START - 31 * DAY, None), (START - 29 * DAY, None), (None, None), (None, START)]
        ):
            session.add(
                Delivery(
                    id=f"del_{number}",
                    webhook_id="wh_1",
                    job_id=job_id,
                    type="job.succeeded",
                    payload={},
                    created_at=START - 31 * DAY,
                    delivered_at=made,
                    next_attempt_at=due,
                )
            )
        for key, hours in (("old", 25), ("new", 23)):
            session.add(
                IdempotencyKey(
                    owner="alice",
                    key=key,
                    request_sha256="0",
                    status=201,
                    headers={},
                    body="",
                    created_at=START - timedelta(hours=hours),
                )
            )
    remove_old_rows(database, settings, at=START)
    with database.session() as session:
        assert {delivery.id for delivery in session.query(Delivery)} == {"del_1", "del_3"}
        assert {answer.key for answer in session.query(IdempotencyKey)} == {"new"}
