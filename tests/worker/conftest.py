"""Settings of a worker of zone X, whose catalogue holds one small model."""

from pathlib import Path

import pytest

from runtime.settings import Settings
from runtime.site import Site
from tests.acceptance.conftest import write_small_catalogue


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture
def worker_settings(settings: Settings, catalogue: Path) -> Settings:
    """The heartbeats are quick, and the lease is long enough for any test."""
    return settings.model_copy(
        update={"zones": {"X": "static"}, "site": Site(zone="X"), "catalogue": catalogue, "heartbeat_seconds": 0.1}
    )
