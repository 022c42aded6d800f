"""Settings of a worker of zone X, whose catalogue holds one small model."""

from pathlib import Path

import pytest

from runtime.settings import Settings
from runtime.site import Site
from tests.acceptance.conftest import write_small_catalogue


@pytest.fixture(scope="module", autouse=True)
def _remembered_traces(remembered_traces: None) -> None:
    """See `tests.traces`."""


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture
def worker_settings(settings: Settings, catalogue: Path) -> Settings:
    """Settings with a short heartbeat interval, and a lease that no test outlasts."""
    return settings.model_copy(
        update={"zones": {"X": "static"}, "site": Site(zone="X"), "catalogue": catalogue, "heartbeat_seconds": 0.1}
    )
