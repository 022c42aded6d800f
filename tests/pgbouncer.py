"""PgBouncer in front of a test's database, as a process of its own."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from cli.stack.embedded import LOOPBACK
from greencore.host_network import find_free_port
from store.database import Database

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
START_SECONDS = 20.0


@contextmanager
def run_pgbouncer(database: Database, *, pool_mode: str, **options: str | int) -> Iterator[str]:
    """The URL of a database behind a PgBouncer in this mode; further settings of its own by name."""
    assert PROGRAM is not None
    port, host = find_free_port(LOOPBACK), str(database.url.query["host"])
    given = {"listen_addr": LOOPBACK, "listen_port": port, "auth_type": "any", "pool_mode": pool_mode, **options}
    target = f"host={host} dbname={database.url.database} user={database.url.username}"
    lines = ["[databases]", f"pooled = {target}", "[pgbouncer]", "unix_socket_dir ="]
    lines += [f"{name} = {value}" for name, value in given.items()]
    # It refuses to run as root, and PostgreSQL's socket is its account's alone, which must find this folder, too.
    account = Path(host).stat().st_uid if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="greentune-pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        configuration, log = Path(folder) / "pgbouncer.ini", Path(folder) / "log"
        configuration.write_text("\n".join(lines))
        with log.open("wb") as file:
            process = subprocess.Popen(
                [PROGRAM, str(configuration)],
                stdout=file,
                stderr=file,
                user=account,
                extra_groups=None if account is None else [],
            )
        try:
            _await_start(process, log)
            url = URL.create("postgresql", username=database.url.username, host=LOOPBACK, port=port, database="pooled")
            yield url.render_as_string(hide_password=False)
        finally:
            process.kill()
            process.wait()


def _await_start(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "process up" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
