"""Benchmarks the service under many jobs and clients: polls, lists, submissions, event streams, dispatch.

python -m benchmarks.service.load
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import text as sql

from benchmarks.report import publish
from cli.stack.embedded import LOOPBACK
from cli.stack.service_stack import Stack
from greencore.host_network import find_free_port
from runtime.settings import Settings
from store.database import Database
from tests.acceptance.conftest import write_small_catalogue

FEW, MANY = 1_000, 100_000
LONGEST_RATIO = 1.5
POLLERS, POLL_SECONDS, POLLING_SECONDS = 200, 2.0, 30.0
STREAMS = 400
DISPATCH_SECONDS = 1.0
DISPATCHED = 6
IDLE_SECONDS = 4.0  # time after a job until its worker counts as idle
OLD_LABEL = "list by metadata that the 90 oldest alone have"
WARM_UP = 5  # calls that are not measured
ROWS = "\n".join(json.dumps({"prompt": f"w{n % 60} w1 w2", "completion": " w7 w8 w9"}) for n in range(24))


@dataclass(frozen=True)
class ServiceUnderBenchmark:
    """A running service, a dataset on it, and the body of a job."""

    url: str
    database: Database
    dataset: str
    job: dict[str, Any]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def async_client(self, connections: int) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False, limits=limits)


def main() -> int:
    """Measure, print and write; return 1 where a check fails."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="greentune-bench-", ignore_cleanup_errors=True) as folder,
        _service(Path(folder)) as bench,
    ):
        dispatch_rows, claimed = _dispatch(bench)
        lists, ratio = _lists(bench)
        polls, unchanged_is_304 = _polls(bench)
        many, errors = asyncio.run(_pollers(bench))
        streams, held = asyncio.run(_streams(bench))
        rows = [*polls, *lists, *_submissions(bench), *many, *streams, *dispatch_rows]
    return publish(
        "service",
        "The service under many jobs and many watchers",
        rows,
        columns=["what", "jobs stored", "count", "per second", "median ms", "p95 ms", "p99 ms"],
        notes=[
            "one API process, a real PostgreSQL and Valkey, scheduler, workers and the clients share these cores",
            f"pollers: {POLLERS} clients that each request one job every {POLL_SECONDS:g} s with its last ETag",
            f"streams: {STREAMS} clients hold one job's event stream open while it runs; ms from the event's own time "
            "to its arrival",
            "dispatch: a job of a tiny model, with its preparation (tokenising its rows, tracing its FLOPs)",
        ],
        checks={
            "an unchanged poll answers 304": unchanged_is_304,
            f"a list page over {MANY:,} jobs takes at most {LONGEST_RATIO:g} times that over {FEW:,}": ratio
            <= LONGEST_RATIO,
            f"from 201 to the claim by an idle worker in under {DISPATCH_SECONDS:g} s": claimed < DISPATCH_SECONDS,
            f"{POLLERS} pollers every {POLL_SECONDS:g} s without an error": errors == 0,
            f"{STREAMS} event streams held open, every event received by all": held,
        },
    )


@contextmanager
def _service(folder: Path) -> Iterator[ServiceUnderBenchmark]:
    hour = folder / "hour.csv"
    hour.write_text("datetime,gco2e_per_kwh\n2026-06-01T00:00:00Z,220\n2026-06-01T01:00:00Z,220\n")
    settings = Settings(
        data_dir=folder / "var",
        catalogue=write_small_catalogue(folder),
        host=LOOPBACK,
        port=find_free_port(LOOPBACK),
        zones={"X": f"trace:{hour}"},
        open_on_loopback=True,
        rate_limit_per_minute=10_000_000,
        max_event_streams=STREAMS + 10,
        max_event_streams_per_owner=STREAMS + 10,
    )
    with Stack(settings, embed_servers=True, print_line=lambda line: None) as stack, stack.running():
        database = Database(stack.database_url)
        with httpx.Client(base_url=stack.url, timeout=60, trust_env=False) as client:
            answer = client.post("/datasets", files={"file": ("rows.jsonl", ROWS.encode())}).raise_for_status()
            dataset = answer.json()["id"]
            job = {
                "model": "small",
                "dataset": dataset,
                "zone": "X",
                "method": "greentrainer",
                "policy": {"kind": "constant", "rho": 0.6},
                "hyperparameters": {"epochs": 1, "eval_share": 0, "max_new_tokens": 1},
            }
            # The first job makes the workers load their libraries.
            _until_over(client, client.post("/jobs", json=job).raise_for_status().json()["id"])
        yield ServiceUnderBenchmark(stack.url, database, dataset, job)
        database.dispose()


def _polls(bench: ServiceUnderBenchmark) -> tuple[list[dict[str, Any]], bool]:
    with bench.client() as client:
        job = client.get("/jobs", params={"limit": 1}).json()["data"][0]["id"]
        answer = client.get(f"/jobs/{job}").raise_for_status()
        headers = {"If-None-Match": answer.headers["ETag"]}
        plain = _timed(lambda: client.get(f"/jobs/{job}").raise_for_status(), 400)
        statuses = set()
        with_etag = _timed(lambda: statuses.add(client.get(f"/jobs/{job}", headers=headers).status_code), 400)
    return [
        _row("poll of a job", MANY, plain),
        _row("poll of an unchanged job, with its ETag", MANY, with_etag),
    ], statuses == {304}


def _lists(bench: ServiceUnderBenchmark) -> tuple[list[dict[str, Any]], float]:
    """Time pages of 50 over few and many stored jobs by every filter; return also the worst ratio of the medians."""
    rows, medians = [], {}
    queries: dict[str, dict[str, Any]] = {
        "list": {},
        "list of a status": {"status": "succeeded"},
        "list of a common status": {"status": "cancelled"},
        "list of a rare status": {"status": "paused"},
        "list of a zone": {"zone": "X"},
        "list by metadata": {"metadata[team]": "speech"},
        OLD_LABEL: {"metadata[era]": "first"},
    }
    with bench.client() as client:
        for stored in (FEW, MANY):
            _store_jobs(bench, stored)
            for what, parameters in queries.items():
                times = _timed(lambda p=parameters: client.get("/jobs", params=p).raise_for_status(), 60)  # type: ignore[misc]
                medians[what, stored] = statistics.median(times)
                rows.append(_row(what, stored, times))
    return rows, max(medians[what, MANY] / medians[what, FEW] for what in queries)


def _store_jobs(bench: ServiceUnderBenchmark, count: int) -> None:
    """Fill the table up to `count` jobs with copies of a succeeded one."""
    copied = (
        "INSERT INTO jobs SELECT (jsonb_populate_record(template.job, jsonb_build_object("
        "'id', 'job_0' || lpad(n::text, 31, '0'), "
        "'status', CASE WHEN n % 1000 < 60 THEN 'paused' ELSE 'cancelled' END, "
        "'metadata', jsonb_build_object('team', CASE WHEN n % 1000 < 60 THEN 'speech' ELSE 'text' END, "
        "'era', CASE WHEN n < 100 THEN 'first' ELSE 'later' END)))).* "
        "FROM (SELECT jobs AS job FROM jobs WHERE status = 'succeeded' LIMIT 1) template, "
        "generate_series(CAST(:first AS integer), CAST(:last AS integer)) n"
    )
    with bench.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        there = connection.scalar(sql("SELECT count(*) FROM jobs")) or 0
        connection.execute(sql(copied), {"first": there, "last": count - 1})
        connection.execute(sql("VACUUM ANALYZE jobs"))


def _submissions(bench: ServiceUnderBenchmark) -> list[dict[str, Any]]:
    """Time consecutive submissions and their cancellations."""
    submitted: list[str] = []

    with bench.client() as client:

        def submit() -> None:
            answer = client.post("/jobs", json={**bench.job, "metadata": {"bench": "submission"}}).raise_for_status()
            submitted.append(answer.json()["id"])

        times = _timed(submit, 100)
        cancelled = _timed(lambda: client.post(f"/jobs/{submitted.pop()}/cancel"), len(submitted) - WARM_UP)
    return [_row("submission", MANY, times), _row("cancellation", MANY, cancelled)]


async def _pollers(bench: ServiceUnderBenchmark) -> tuple[list[dict[str, Any]], int]:
    """Time the polls of many clients, each on its own connection; return also the number of errors."""
    times: list[float] = []
    errors = 0
    begin = time.monotonic()

    async def poll(number: int) -> None:
        nonlocal errors
        async with bench.async_client(1) as client:
            jobs = (await client.get("/jobs", params={"limit": 50})).json()["data"]
            job, etag = jobs[number % len(jobs)]["id"], ""
            await asyncio.sleep(number / POLLERS * POLL_SECONDS)
            while time.monotonic() < begin + POLLING_SECONDS:
                asked = time.perf_counter()
                try:
                    answer = await client.get(f"/jobs/{job}", headers={"If-None-Match": etag} if etag else {})
                    errors += answer.status_code not in (200, 304)
                    etag = answer.headers.get("ETag", "")
                except httpx.HTTPError:
                    errors += 1
                took = time.perf_counter() - asked
                times.append(took)
                await asyncio.sleep(max(0.0, POLL_SECONDS - took))

    await asyncio.gather(*(poll(number) for number in range(POLLERS)))
    return [_row(f"polls of {POLLERS} pollers", MANY, times, over=time.monotonic() - begin)], errors


async def _streams(bench: ServiceUnderBenchmark) -> tuple[list[dict[str, Any]], bool]:
    """Time many open event streams of a running job; return also whether each received every event."""
    lags: list[float] = []

    async with bench.async_client(STREAMS + 10) as client:
        body = {**bench.job, "hyperparameters": {"epochs": 3, "eval_share": 0, "max_new_tokens": 1}}
        job = (await client.post("/jobs", json=body)).raise_for_status().json()["id"]

        async def listen() -> list[int]:
            heard: list[int] = []
            opened = time.time()
            async with client.stream("GET", f"/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    if line.startswith("id:"):
                        heard.append(int(line.removeprefix("id:")))
                    elif line.startswith("data:") and '"at"' in line:
                        at = datetime.fromisoformat(json.loads(line.removeprefix("data:"))["at"]).timestamp()
                        if at > opened + 1:
                            lags.append(time.time() - at)
            return heard

        heard = await asyncio.gather(*(listen() for _ in range(STREAMS)))
        events = (await client.get(f"/jobs/{job}/events", params={"limit": 200})).raise_for_status().json()["data"]
    wanted = [event["id"] for event in reversed(events)]
    return [_row(f"events to {STREAMS} open streams", MANY, lags)], all(one == wanted for one in heard)


def _dispatch(bench: ServiceUnderBenchmark) -> tuple[list[dict[str, Any]], float]:
    """Time the dispatch from 201 to the claim; return also its median in seconds for an idle worker."""
    idle = [_dispatched(bench, after_seconds=IDLE_SECONDS) for _ in range(DISPATCHED)]
    busy = [_dispatched(bench, after_seconds=0.0) for _ in range(DISPATCHED)]
    rows = []
    for worker, taken in (("an idle worker", idle), ("a worker that has just ended a job", busy)):
        prepared, claimed = zip(*taken, strict=True)
        rows += [
            _row(f"dispatch to {worker}: 201 to prepared", FEW, list(prepared)),
            _row(f"dispatch to {worker}: prepared to claimed", FEW, list(claimed)),
            _row(f"dispatch to {worker}: 201 to claimed", FEW, [sum(parts) for parts in taken]),
        ]
    return rows, statistics.median(sum(parts) for parts in idle)


def _dispatched(bench: ServiceUnderBenchmark, *, after_seconds: float) -> tuple[float, float]:
    """Return the seconds from a job's 201 until it was prepared, and from there until it was claimed."""
    time.sleep(after_seconds)
    with bench.client() as client:
        answer = client.post("/jobs", json=bench.job).raise_for_status()
        answered = time.time()
        job = answer.json()["id"]
        _until_over(client, job)
        events = client.get(f"/jobs/{job}/events", params={"limit": 200}).raise_for_status().json()["data"]
    first: dict[str, float] = {}
    for event in reversed(events):
        first.setdefault(event["type"], datetime.fromisoformat(event["at"]).timestamp())
    return first["job.queued"] - answered, first["job.running"] - first["job.queued"]


def _until_over(client: httpx.Client, job: str) -> None:
    while (status := client.get(f"/jobs/{job}").raise_for_status().json()["status"]) != "succeeded":
        if status in ("failed", "cancelled"):
            raise RuntimeError(f"{job} has {status}: {client.get(f'/jobs/{job}').text}")
        time.sleep(0.2)


def _timed(call: Callable[[], object], count: int) -> list[float]:
    """Time each of `count` calls in seconds, after `WARM_UP` others."""
    for _ in range(WARM_UP):
        call()
    marks = [time.perf_counter()]
    for _ in range(count):
        call()
        marks.append(time.perf_counter())
    return [later - earlier for earlier, later in pairwise(marks)]


def _row(what: str, stored: int, seconds: list[float], *, over: float | None = None) -> dict[str, Any]:
    """Summarise durations as a row; `over` is the total duration of concurrent calls."""
    median, p95, p99 = (1000 * np.quantile(seconds, [0.5, 0.95, 0.99], method="nearest")).tolist()
    return {
        "what": what,
        "jobs stored": stored,
        "count": len(seconds),
        "per second": len(seconds) / (over or sum(seconds)),
        "median ms": median,
        "p95 ms": p95,
        "p99 ms": p99,
    }


if __name__ == "__main__":
    sys.exit(main())
