"""Checkpoints are complete, resumed from only if registered, and written only by the lease's holder."""

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.settings import Settings
from store.database import Database
from store.lifecycle.leases import Lease, LeaseLost
from tests.scheduler.stage import events
from tests.worker.stage import (
    checkpoint_names,
    claim_as_worker,
    event_types,
    list_file_names,
    queued_job,
    requeue_as_scheduler,
)
from worker.training.heartbeat import LeaseHeartbeat
from worker.training.leased_writer import LeasedWriter
from worker.training.registered_checkpoints import RegisteredCheckpoints

ROOM_BYTES = 300_000
SIZE_BYTES = 900_000


@pytest.fixture
def job_id(database: Database, settings: Settings) -> str:
    return queued_job(database, settings)


@pytest.fixture
def checkpoints(database: Database, settings: Settings, job_id: str) -> Callable[[], RegisteredCheckpoints]:
    """Return the checkpoints of a new attempt."""

    def begin() -> RegisteredCheckpoints:
        return of_attempt(database, settings, claim_as_worker(database, job_id))

    return begin


def of_attempt(database: Database, settings: Settings, lease: Lease) -> RegisteredCheckpoints:
    writer = LeasedWriter(database, lease, LeaseHeartbeat(database, lease, settings), lease_seconds=1.0)
    return RegisteredCheckpoints(settings.job_dir(lease.job_id), writer, before_register=lambda: None)


def fill(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"w" * SIZE_BYTES)
    (folder / "state.json").write_text("{}")


@contextmanager
def no_room() -> Iterator[None]:
    """Limit the size of files, as a quota does; the test's own output needs some room, too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_last_two_checkpoints_stay_registered_and_on_disk(
    database: Database, settings: Settings, job_id: str, checkpoints: Callable[[], RegisteredCheckpoints]
) -> None:
    first = checkpoints()
    for step in (9, 18, 27):
        first.write_checkpoint(step, step // 9, fill)
    assert checkpoint_names(database, job_id) == {"checkpoint-18-1", "checkpoint-27-1"}
    assert list_file_names(settings.job_dir(job_id)) == {"checkpoint-18-1", "checkpoint-27-1"}


def test_files_of_lost_attempts_are_removed_and_never_resumed_from(
    database: Database, settings: Settings, job_id: str, checkpoints: Callable[[], RegisteredCheckpoints]
) -> None:
    checkpoints().write_checkpoint(9, 1, fill)
    folder = settings.job_dir(job_id)
    for left in (".checkpoint-18-1", "checkpoint-18-1", ".result-1", "result-1", "artifacts"):
        (folder / left).mkdir()
        fill(folder / left)
    requeue_as_scheduler(database, job_id)
    found = checkpoints().find_newest()
    assert found == folder / "checkpoint-9-1"
    assert list_file_names(folder) == {"checkpoint-9-1"}


@pytest.mark.parametrize("damage", ["truncated", "missing", "altered", "no manifest", "all of it"])
def test_a_damaged_checkpoint_is_recorded_and_the_one_before_it_used(
    database: Database, job_id: str, checkpoints: Callable[[], RegisteredCheckpoints], damage: str
) -> None:
    first = checkpoints()
    first.write_checkpoint(9, 1, fill)
    first.write_checkpoint(18, 2, fill)
    newest = first.find_newest()
    assert newest is not None
    weights = newest / "weights.bin"
    match damage:
        case "truncated":
            weights.write_bytes(b"w" * (SIZE_BYTES - 1000))
        case "missing":
            weights.unlink()
        case "altered":
            weights.write_bytes(b"w" * (SIZE_BYTES - 1) + b"v")
        case "no manifest":
            (newest / "manifest.json").unlink()
        case _:
            newest.rename(newest.with_name("elsewhere"))
    requeue_as_scheduler(database, job_id)
    found = checkpoints().find_newest()
    assert found is not None
    assert found.name == "checkpoint-9-1"
    assert checkpoint_names(database, job_id) == {"checkpoint-9-1"}
    [event] = [event for event in events(database, job_id) if event.type == "checkpoint.damaged"]
    assert event.data["checkpoint"] == "checkpoint-18-1"


def test_a_run_whose_only_checkpoint_is_damaged_starts_again(
    database: Database, job_id: str, checkpoints: Callable[[], RegisteredCheckpoints]
) -> None:
    first = checkpoints()
    first.write_checkpoint(9, 1, fill)
    (first.folder / "checkpoint-9-1" / "state.json").unlink()
    requeue_as_scheduler(database, job_id)
    assert checkpoints().find_newest() is None


def test_a_worker_that_lost_its_lease_leaves_nothing_and_touches_nothing(
    database: Database, settings: Settings, job_id: str, checkpoints: Callable[[], RegisteredCheckpoints]
) -> None:
    loser = checkpoints()
    loser.write_checkpoint(9, 1, fill)
    requeue_as_scheduler(database, job_id)
    winner = checkpoints()
    winner.write_checkpoint(18, 2, fill)
    with pytest.raises(LeaseLost):
        loser.write_checkpoint(27, 3, fill)
    assert checkpoint_names(database, job_id) == {"checkpoint-9-1", "checkpoint-18-2"}
    assert list_file_names(settings.job_dir(job_id)) == {"checkpoint-9-1", "checkpoint-18-2"}
    assert winner.find_newest() == settings.job_dir(job_id) / "checkpoint-18-2"


def test_a_full_disk_leaves_the_checkpoint_before_it_and_is_recorded(
    database: Database, settings: Settings, job_id: str, checkpoints: Callable[[], RegisteredCheckpoints]
) -> None:
    first = checkpoints()
    first.write_checkpoint(9, 1, fill)
    with no_room():
        first.write_checkpoint(18, 2, fill)
    assert list_file_names(settings.job_dir(job_id)) == {"checkpoint-9-1"}
    [event] = [event for event in events(database, job_id) if event.type == "checkpoint.failed"]
    assert event.data["step"] == 18
    assert "no room" in event.data["reason"]
    first.write_checkpoint(27, 3, fill)
    assert checkpoint_names(database, job_id) == {"checkpoint-9-1", "checkpoint-27-1"}


def test_other_disk_errors_are_raised(checkpoints: Callable[[], RegisteredCheckpoints]) -> None:
    def broken(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    first = checkpoints()
    with pytest.raises(OSError, match="Input/output"):
        first.write_checkpoint(9, 1, broken)
    assert list_file_names(first.folder) == set()


def test_a_job_without_registered_checkpoints_resumes_from_its_folder(
    database: Database, settings: Settings, job_id: str, checkpoints: Callable[[], RegisteredCheckpoints]
) -> None:
    old = settings.job_dir(job_id) / "checkpoint-9"
    old.mkdir(parents=True)
    fill(old)
    claim_as_worker(database, job_id)
    requeue_as_scheduler(database, job_id)
    second = checkpoints()
    assert second.find_newest() == old
    second.write_checkpoint(18, 2, fill)
    assert list_file_names(second.folder) == {"checkpoint-18-2"}
    assert "checkpoint.damaged" not in event_types(database, job_id)
