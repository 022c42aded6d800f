"""Every process refuses a connection pooler in transaction mode; one in session mode works as PostgreSQL itself."""

import json
import os
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url, text
from typer.testing import CliRunner

import cli.main
from api.main import create_app
from runtime.settings import Settings
from scheduler.leadership import Leadership
from store.database import Database
from store.pooling import TransactionPooling, require_sessions
from tests import pgbouncer
from tests.api.conftest import NOW
from tests.pgbouncer import run_pgbouncer

pytestmark = [
    pytest.mark.fault(number=24),
    pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="PgBouncer is not installed: apt install pgbouncer"),
]

PROCESSES = {
    "api": ("uvicorn", "api.main:app", "--port", "0"),
    "scheduler": ("scheduler",),
    "prepare worker": ("worker", "prepare"),
    "migrate": ("cli.main", "migrate"),
}


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("transaction", {}),
        ("transaction", {"default_pool_size": 1}),
        ("transaction", {"server_round_robin": 1, "min_pool_size": 5}),
        ("statement", {}),
    ],
)
def test_a_pooler_without_sessions_is_detected(database: Database, mode: str, options: dict[str, int]) -> None:
    with (
        run_pgbouncer(database, pool_mode=mode, **options) as url,
        pytest.raises(TransactionPooling, match="pool_mode = session"),
    ):
        require_sessions(make_url(url))


def test_a_busy_pooler_is_detected(database: Database) -> None:
    with run_pgbouncer(database, pool_mode="transaction", default_pool_size=4) as url:
        other = Database(url)
        with other.engine.connect() as first, other.engine.connect() as second:
            for connection in (first, second):
                connection.execute(text("SELECT 1"))
            with pytest.raises(TransactionPooling):
                require_sessions(make_url(url))
        other.dispose()


def test_a_pooler_in_session_mode_works_as_the_server_does(settings: Settings, database: Database) -> None:
    with run_pgbouncer(database, pool_mode="session") as url:
        require_sessions(make_url(url))
        with TestClient(create_app(settings.model_copy(update={"database_url": url}), clock=lambda: NOW)) as client:
            assert client.get("/readyz").status_code == 200
        pooled = Database(url, statement_timeout_seconds=7)
        leaders = [Leadership(pooled.url), Leadership(database.url)]
        with pooled.session() as session:
            assert session.scalar(text("SHOW timezone")) == "UTC"
            assert session.scalar(text("SHOW statement_timeout")) == "7s"
        assert [leader.try_acquire() for leader in leaders] == [True, False]
        for leader in leaders:
            leader.resign()
        pooled.dispose()


def test_postgresql_itself_is_not_taken_for_a_pooler(database: Database) -> None:
    for _ in range(5):
        require_sessions(database.url)


def test_every_process_refuses_it_at_its_start_with_the_reason(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_pgbouncer(database, pool_mode="transaction") as url:
        settings = settings.model_copy(update={"database_url": url})
        running = {
            name: subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**os.environ, **settings.environment()},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name, command in PROCESSES.items()
        }
        for name, process in running.items():
            output, _ = process.communicate(timeout=120)
            assert process.returncode != 0, name
            assert "pool_mode = session" in output, f"{name}: {output}"
            assert "Traceback" not in output, f"{name}: {output}"

        monkeypatch.setenv("DATABASE_URL", url)
        result = CliRunner().invoke(cli.main.app, ["doctor", "--json"])
        found = {check["name"]: check for check in json.loads(result.stdout)}
        assert result.exit_code == 1
        assert found["database sessions"]["state"] == "failed"
        assert "advisory locks" in found["database sessions"]["found"]
        assert "pool_mode = session" in found["database sessions"]["mend"]

        with TestClient(create_app(settings)) as client:
            ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "pooler in transaction mode" in ready.json()["detail"]
