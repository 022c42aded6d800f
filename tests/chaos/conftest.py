"""One service for each test process, and the number of faults: few in `make test`, many in `make chaos`."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.history import check
from tests.chaos.site import ServiceUnderTest


@dataclass(frozen=True)
class FaultPlan:
    """Return how often a worker is killed, and for how many seconds a server is down."""

    kills: int
    outage_seconds: float


@pytest.fixture(scope="session")
def fault_plan() -> FaultPlan:
    return FaultPlan(kills=50, outage_seconds=60.0) if os.environ.get("CHAOS") == "full" else FaultPlan(2, 4.0)


@pytest.fixture(scope="session")
def service() -> Iterator[ServiceUnderTest]:
    # Not under pytest's own folder: a path to a Unix socket has room for about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="greentune-chaos-"))
    folder.chmod(0o755)
    service = ServiceUnderTest(folder)
    try:
        service.open()
        yield service
    finally:
        service.close()


@pytest.fixture(scope="session")
def dataset(service: ServiceUnderTest) -> str:
    return service.upload()


@pytest.fixture(scope="session")
def reference_job(service: ServiceUnderTest, dataset: str) -> str:
    """Run a job without faults."""
    job_id = service.submit(dataset)
    service.wait_for(job_id, "succeeded")
    check(service.database, [job_id])
    return job_id
