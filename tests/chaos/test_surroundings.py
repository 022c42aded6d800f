"""Faults around the service: a full disk, a clock that jumps, files that are removed, a frozen worker."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from store.lifecycle.status import JobStatus
from tests.chaos.history import check, check_weights
from tests.chaos.site import ROWS, ServiceUnderTest, wait_until

CLOCK = Path(__file__).parent / "jumping_clock"


@pytest.fixture
def small_disk(service: ServiceUnderTest) -> Iterator[Path]:
    """The jobs' folder on a disk of its own that is nearly full; removing `ballast` makes room."""
    jobs = service.settings.data_dir / "jobs"
    jobs.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(jobs)], check=False).returncode == 0
    if not mounted:
        pytest.skip("a disk of its own takes the right to mount one")
    try:
        yield jobs
    finally:
        wait_until("the disk is free", lambda: subprocess.run(["umount", str(jobs)], check=False).returncode == 0)


def test_a_full_disk_at_checkpoint_time_leaves_no_half_checkpoint(
    service: ServiceUnderTest, dataset: str, reference_job: str, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    job = service.submit(dataset)
    service.under_way(job, epochs=1)
    with ballast.open("wb") as file:  # until nothing more fits
        try:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        except OSError:
            pass
    wait_until(
        "a checkpoint has failed, or the result",
        lambda: (
            any(event["type"] == "checkpoint.failed" for event in service.events(job))
            or service.job(job)["status"] == "failed"
        ),
    )
    ballast.unlink()
    wait_until("the job is over", lambda: service.job(job)["status"] in ("succeeded", "failed"))
    if service.job(job)["status"] == "failed":
        assert "disk" in service.job(job)["error"]["title"].lower()
        assert service.client.post(f"/jobs/{job}/retry").status_code == 202
    service.wait_for(job, "succeeded")
    check(service.database, [job])
    check_weights(service.database, [job], reference_job=reference_job)


def test_a_clock_that_jumps_there_and_back_takes_no_job_from_a_living_worker(
    service: ServiceUnderTest, dataset: str, reference_job: str
) -> None:
    offset = service.folder / "clock-offset"
    offset.write_text("0")
    clock = {"PYTHONPATH": f"{CLOCK}:{Path(__file__).parents[2]}", "CLOCK_OFFSET": str(offset)}
    service.kill("worker")
    service.kill("scheduler")
    service.start("worker", environment=clock)
    service.start("scheduler", environment=clock)
    try:
        job = service.submit(dataset)
        for epochs, jump_seconds in ((0, 7200), (1, -7200)):
            service.under_way(job, epochs=epochs)
            offset.write_text(str(jump_seconds))
        service.wait_for(job, "succeeded")
    finally:
        offset.write_text("0")
    assert service.job(job)["attempts"] == 1
    check_weights(service.database, [job], reference_job=reference_job)


def test_a_removed_dataset_fails_its_job_by_name_and_no_other(service: ServiceUnderTest, dataset: str) -> None:
    doomed = service.upload(ROWS.replace("w8", "w9"))
    before = set(service.settings.datasets_dir.iterdir())
    lost = service.upload(ROWS.replace("w8", "w10"))
    for file in set(service.settings.datasets_dir.iterdir()) - before:
        file.unlink()
    jobs = [service.submit(lost), service.submit(doomed)]
    wait_until("the job has failed", lambda: service.job(jobs[0])["status"] == "failed")
    assert service.job(jobs[0])["error"]["field"] == "dataset"
    service.wait_for(jobs[1], "succeeded")
    check(service.database, jobs[:1], ends=JobStatus.FAILED)
    check(service.database, jobs[1:])


def test_a_worker_that_was_frozen_for_longer_than_its_lease_writes_nothing_more(
    service: ServiceUnderTest, dataset: str, reference_job: str
) -> None:
    import psutil

    job = service.submit(dataset)
    service.under_way(job, epochs=0)
    frozen = [psutil.Process(service.pid("worker")), *psutil.Process(service.pid("worker")).children(recursive=True)]
    try:
        for process in frozen:
            process.suspend()
        service.wait_for(job, "queued")
        service.start("rival", "tests.slow_worker", "train")
        try:
            service.under_way(job)
            for process in frozen:
                process.resume()
            service.wait_for(job, "succeeded")
        finally:
            service.kill("rival")
    finally:
        for process in frozen:  # the tests that follow use this worker
            with suppress(psutil.NoSuchProcess):
                process.resume()
    assert service.job(job)["attempts"] == 2
    check_weights(service.database, [job], reference_job=reference_job)
    check(service.database, [job])
