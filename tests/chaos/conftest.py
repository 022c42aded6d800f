"""One service for each test process, and how hard it is hit: a little in `make test`, in earnest in `make chaos`."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.history import check
from tests.chaos.site import Site


@dataclass(frozen=True)
class Force:
    """How often a worker is killed, and for how many seconds a server is gone."""

    kills: int
    outage_seconds: float


@pytest.fixture(scope="session")
def force() -> Force:
    return Force(kills=50, outage_seconds=60.0) if os.environ.get("CHAOS") == "full" else Force(3, 4.0)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    # Not under pytest's own folder: a path to a Unix socket has room for about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="greentune-chaos-"))
    folder.chmod(0o755)
    site = Site(folder)
    try:
        site.open()
        yield site
    finally:
        site.close()


@pytest.fixture(scope="session")
def dataset(site: Site) -> str:
    return site.upload()


@pytest.fixture(scope="session")
def undisturbed(site: Site, dataset: str) -> str:
    """A job that nothing happened to."""
    job_id = site.submit(dataset)
    site.wait_for(job_id, "succeeded")
    check(site.database, [job_id])
    return job_id
