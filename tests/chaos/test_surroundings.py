"""What surrounds the service: a disk that fills, a clock that jumps, files that somebody removes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.status import JobStatus
from tests.chaos.history import check, check_weights
from tests.chaos.site import ROWS, Site, wait_until

CLOCK = Path(__file__).parent / "jumping_clock"


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """The jobs' folder on a disk of its own that is nearly full; removing `ballast` makes room."""
    jobs = site.settings.data_dir / "jobs"
    jobs.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(jobs)], check=False).returncode == 0
    if not mounted:
        pytest.skip("a disk of its own takes the right to mount one")
    try:
        yield jobs
    finally:
        site.restart("worker")  # which may hold files there
        wait_until("the disk is free", lambda: subprocess.run(["umount", str(jobs)], check=False).returncode == 0)


def test_a_full_disk_at_checkpoint_time_leaves_no_half_checkpoint(
    site: Site, dataset: str, undisturbed: str, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    job = site.submit(dataset)
    site.under_way(job, epochs=1)
    with ballast.open("wb") as file:  # until nothing more fits
        try:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        except OSError:
            pass
    wait_until(
        "a checkpoint has failed, or the result",
        lambda: "checkpoint.failed" in _types(site, job) or site.job(job)["status"] == "failed",
    )
    ballast.unlink()
    wait_until("the job is over", lambda: site.job(job)["status"] in ("succeeded", "failed"))
    if site.job(job)["status"] == "failed":
        assert "disk" in site.job(job)["error"]["title"].lower()
        assert site.client.post(f"/jobs/{job}/retry").status_code == 202
    site.wait_for(job, "succeeded")
    check(site.database, [job])
    check_weights(site.database, [job], undisturbed=undisturbed)


def test_a_clock_that_jumps_there_and_back_takes_no_job_from_a_living_worker(
    site: Site, dataset: str, undisturbed: str, tmp_path: Path
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    clock = {"PYTHONPATH": f"{CLOCK}:{Path(__file__).parents[2]}", "CLOCK_OFFSET": str(offset)}
    site.kill("worker")
    site.kill("scheduler")
    site.start("worker", environment=clock)
    site.start("scheduler", environment=clock)
    try:
        job = site.submit(dataset)
        for epochs, jump_seconds in ((0, 7200), (1, -7200)):
            site.under_way(job, epochs=epochs)
            offset.write_text(str(jump_seconds))
        site.wait_for(job, "succeeded")
    finally:
        site.restart("worker")
        site.restart("scheduler")
    assert site.job(job)["attempts"] == 1
    check_weights(site.database, [job], undisturbed=undisturbed)


def test_a_dataset_removed_behind_its_back_fails_its_job_by_name_and_no_other(site: Site, dataset: str) -> None:
    doomed = site.upload(ROWS.replace("w8", "w9"))
    before = set(site.settings.datasets_dir.iterdir())
    lost = site.upload(ROWS.replace("w8", "w10"))
    for file in set(site.settings.datasets_dir.iterdir()) - before:
        file.unlink()
    jobs = [site.submit(lost), site.submit(doomed)]
    wait_until("the job has failed", lambda: site.job(jobs[0])["status"] == "failed")
    assert site.job(jobs[0])["error"]["field"] == "dataset"
    site.wait_for(jobs[1], "succeeded")
    check(site.database, jobs[:1], ends=JobStatus.FAILED)
    check(site.database, jobs[1:])


def test_a_worker_that_was_frozen_for_longer_than_its_lease_writes_nothing_more(
    site: Site, dataset: str, undisturbed: str
) -> None:
    import psutil

    job = site.submit(dataset)
    site.under_way(job, epochs=0)
    frozen = [psutil.Process(site.pid("worker")), *psutil.Process(site.pid("worker")).children(recursive=True)]
    for process in frozen:
        process.suspend()
    site.wait_for(job, "queued")
    site.start("rival", "worker", "train")
    try:
        site.under_way(job)
        for process in frozen:
            process.resume()
        site.wait_for(job, "succeeded")
    finally:
        site.kill("rival")
        site.restart("worker")
    assert site.job(job)["attempts"] == 2
    check_weights(site.database, [job], undisturbed=undisturbed)
    check(site.database, [job])


def _types(site: Site, job: str) -> set[str]:
    answer = site.client.get(f"/jobs/{job}/events", params={"limit": 200})
    return {event["type"] for event in answer.json()["data"]}
