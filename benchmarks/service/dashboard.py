"""Benchmarks the dashboard's pages in a real browser, with many stored jobs and with a long run.

python -m benchmarks.service.dashboard
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page

from benchmarks.report import publish
from cli.stack.embedded import LOOPBACK
from cli.stack.service_stack import Stack
from greencore.host_network import find_free_port
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from tests.browser.long_run import INTERVALS, NAMES, STEPS, stage_long_run
from tests.browser.measures import count_bytes, frame_milliseconds, open_job, seconds_to_last_row
from tests.browser.stage import stage_all, stage_dataset, stage_job, stage_many
from tests.chromium import launch_chromium

JOBS = 10_000
FILTERED = "/?status=succeeded&zone=GB&metadata[team]=speech"
LOADS = 20
LONGEST_LOAD_SECONDS = 1.0
LARGEST_KB = 300.0
SLOWEST_FRAME_MS = 50.0


def main() -> int:
    """Measure, print and write; return 1 where a check fails."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="greentune-bench-", ignore_cleanup_errors=True) as folder:
        settings = Settings(
            data_dir=Path(folder) / "var",
            host=LOOPBACK,
            port=find_free_port(LOOPBACK),
            open_on_loopback=True,
            rate_limit_per_minute=10_000_000,
        )
        with (
            Stack(settings, embed_servers=True, print_line=lambda line: None) as stack,
            stack.running(),
            launch_chromium() as browser,
        ):
            database = Database(stack.database_url)
            long_run = _stage(database, stack.settings)
            page = browser.new_context(base_url=stack.url, viewport={"width": 1280, "height": 800}).new_page()
            lists = [_list(page, "the jobs", "/"), _list(page, "the jobs by three filters", FILTERED)]
            job, frames = _job(page, long_run)
            database.dispose()
    loads = [row["slowest ms"] for row in lists]
    return publish(
        "dashboard",
        "The dashboard with many jobs and with a long run",
        [*lists, job, frames],
        columns=["what", "times", "median ms", "p95 ms", "slowest ms", "kB"],
        notes=[
            f"{JOBS:,} jobs stored; a page shows 50, and is loaded when the last of them is shown",
            f"the long run: {STEPS:,} steps, {INTERVALS:,} intervals of energy, {len(NAMES)} tensors in 16 epochs",
            "kB: transferred with an empty browser cache, scripts and styles included",
            "a change: time from a key press until all panels are drawn",
            "Chromium, API, PostgreSQL and the service's other processes share these cores",
        ],
        checks={
            f"every load of the jobs takes less than {LONGEST_LOAD_SECONDS:g} s": max(loads)
            < LONGEST_LOAD_SECONDS * 1000,
            f"the page of the long run is less than {LARGEST_KB:g} kB": job["kB"] < LARGEST_KB,
            f"95 % of the changes take less than {SLOWEST_FRAME_MS:g} ms": frames["p95 ms"] < SLOWEST_FRAME_MS,
        },
    )


def _stage(database: Database, settings: Settings) -> str:
    """Store many jobs and one with a long run; return the latter's id."""
    now = datetime.now(UTC)
    stage_all(database, settings, now=now)
    dataset = stage_dataset(database, settings, now=now)
    job_id = stage_job(database, settings, dataset, JobStatus.SUCCEEDED, now=now)
    stage_long_run(database, job_id, now - timedelta(days=8))
    stage_many(database, JOBS)
    return job_id


def _list(page: Page, what: str, address: str) -> dict[str, Any]:
    page.goto(address)  # warm up: compilation and caching do not count
    sizes = count_bytes(page)
    milliseconds = [seconds_to_last_row(page, address) * 1000 for _ in range(LOADS)]
    page.wait_for_load_state("networkidle")
    return _row(what, milliseconds, kilobytes=sum(sizes) / LOADS / 1000)


def _job(page: Page, job_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    sizes = count_bytes(page)
    begun = datetime.now(UTC)
    open_job(page, job_id)
    page.locator("#map-grids canvas").first.wait_for()
    load = (datetime.now(UTC) - begun) / timedelta(milliseconds=1)
    kilobytes = sum(sizes) / 1000
    frames = [duration for _ in range(5) for duration in frame_milliseconds(page)]
    return (
        _row("the long run, until nothing more is loaded", [load], kilobytes=kilobytes),
        _row("a change of its curves", frames),
    )


def _row(what: str, milliseconds: Sequence[float], *, kilobytes: float | None = None) -> dict[str, Any]:
    median, p95, slowest = np.quantile(milliseconds, [0.5, 0.95, 1.0], method="nearest").tolist()
    return {
        "what": what,
        "times": len(milliseconds),
        "median ms": median,
        "p95 ms": p95,
        "slowest ms": slowest,
        "kB": kilobytes,
    }


if __name__ == "__main__":
    sys.exit(main())
