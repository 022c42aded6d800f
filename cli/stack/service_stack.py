"""The whole service on one machine: PostgreSQL, Valkey, API, scheduler and workers, started and stopped together."""

import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import httpx

from cli.errors import CommandError, ExitCode
from cli.stack.data_folder import lock_data_folder, make_secret, read_secret
from cli.stack.embedded import EmbeddedPostgres, EmbeddedValkey
from cli.stack.preconditions import check_database, check_port, check_redis, report_database_errors
from cli.stack.processes import POLL_SECONDS, ManagedProcess, ProcessSpec, Watchdog, python_environment
from cli.stack.worker_readiness import ping_worker
from migrations.upgrade import upgrade
from runtime.private_files import make_private_folder, restrict_data_folder
from runtime.settings import KEPT_FROM_WORKERS, PROVIDER_SECRETS, Settings

READY_SECONDS = 120.0
# A running job is given this long to reach its next optimiser step and write a checkpoint.
DRAIN_SECONDS = 60.0
WATCH_SECONDS = 0.25

PrintLine = Callable[[str], None]


class StopRequested(CommandError):
    """The stack was asked to stop."""

    def __init__(self) -> None:
        super().__init__("interrupted", ExitCode.INTERRUPTED)


class Stack:
    """The service's processes. Enter it to take the data folder, `start()` it, `watch()` it; leaving stops all.

    With `embed_servers`, PostgreSQL and Valkey are embedded even where `settings` name others. A running job gets
    `drain_seconds` to reach a checkpoint. Every line that a user should see goes to `print_line`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        print_line: PrintLine,
        embed_servers: bool = False,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self.settings = settings
        self.data_dir = settings.data_dir.resolve()
        self.logs = self.data_dir / "logs"
        self.database_url = settings.database_url
        self.redis_url = settings.redis_url
        # True where keys that exist already can no longer be verified.
        self.secret_is_new = False
        self._print_line = print_line
        self._drain_seconds = drain_seconds
        # Servers that the settings name, in place of embedded ones.
        self._external_servers = set() if embed_servers else settings.model_fields_set & {"database_url", "redis_url"}
        self._failure: CommandError | None = None
        self._stop = threading.Event()
        self._force = threading.Event()
        self._processes: dict[str, ManagedProcess] = {}
        self._restart_at: dict[str, float] = {}
        self._resources = ExitStack()
        self._watchdog: Watchdog | None = None

    @property
    def url(self) -> str:
        """URL of the API as seen from this machine: a wildcard address is reached by loopback."""
        host = self.settings.host
        seen = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared, not listened on)
        return f"http://{f'[{seen}]' if ':' in seen else seen}:{self.settings.port}"

    def __enter__(self) -> "Stack":
        check_port(self.settings.host, self.settings.port)
        with self._resources:
            self._resources.enter_context(lock_data_folder(self.data_dir))
            self._load_or_create_secret()
            make_private_folder(self.logs)
            restrict_data_folder(self.data_dir)
            self._watchdog = self._resources.enter_context(Watchdog())
            self._resources = self._resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._resources:
            self.stop()

    def interrupt(self) -> None:
        """Ask the stack to stop; a second call kills the service's programs instead of waiting for them."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    def start(self) -> None:
        """Start everything and wait until the API says that the service is ready.

        Raises `CommandError` with the reason where it cannot be, and `StopRequested` where it was interrupted.
        """
        self._start_servers()
        with report_database_errors():
            upgrade(self.database_url)
        self._print_line("database: migrated")
        self._launch(self._programs())
        self._wait_until_ready()

    def watch(self) -> None:
        """Restart what exits, until interrupted. Raises `ProcessFailed` where a process does not stay up."""
        while not self._stop.wait(WATCH_SECONDS):
            self.restart_exited()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start, and watch for as long as the block runs; a failure is raised by `wait`, or at the block's end."""
        self.start()

        def watch() -> None:
            try:
                self.watch()
            except CommandError as error:
                self._failure = error
                self._stop.set()

        watcher = threading.Thread(target=watch, name="stack-watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._stop.set()
            watcher.join()
        if self._failure is not None:
            raise self._failure

    def wait(self, seconds: float) -> None:
        """Wait while the stack runs.

        Raises `StopRequested` where it was asked to stop, and `ProcessFailed` where a process did not stay up.
        """
        if self._stop.wait(seconds):
            raise self._failure or StopRequested()

    def restart_exited(self) -> None:
        """Restart each process that has exited and whose backoff is over."""
        now = time.monotonic()
        for name, process in self._processes.items():
            how = process.poll_exit()
            if how is not None:
                pause = process.backoff_seconds()
                if pause is None:
                    raise process.describe_failure(f"does not stay up: {how}")
                self._print_line(f"{name}: {how}; starting it again in {pause:g} s")
                self._restart_at[name] = now + pause
            elif self._restart_at.get(name, now + 1) <= now:
                del self._restart_at[name]
                process.start()
                self._print_line(f"{name}: started again")

    def stop(self) -> None:
        """Stop everything in order: first the API, last the servers with the data."""
        never_forced = threading.Event()
        for names, force in (
            (["api"], self._force),
            (["scheduler"], self._force),
            (["prepare-worker", "train-worker"], self._force),
            # They stop within moments, and a killed one must recover at its next start.
            (["valkey"], never_forced),
            (["postgres"], never_forced),
        ):
            processes = [self._processes.pop(name) for name in names if name in self._processes]
            for process in processes:
                process.request_stop()
            for process in processes:
                process.wait_for_exit(force)

    def _load_or_create_secret(self) -> None:
        """Use the secret of the settings, else that of the data folder, which is created the first time."""
        if self.settings.secret_key is None:
            kept = read_secret(self.data_dir)
            self.secret_is_new = kept is None
            self.settings = self.settings.model_copy(update={"secret_key": kept or make_secret(self.data_dir)})

    def _start_servers(self) -> None:
        """Start the embedded servers, or check that those named in the environment answer."""
        services = []
        if "database_url" in self._external_servers:
            check_database(self.database_url)
        else:
            postgres = EmbeddedPostgres(self.data_dir / "postgres")
            self._resources.callback(postgres.close)
            for folder in postgres.prepare():
                self._print_line(f"postgres: {folder} is now open for its account to pass through")
            self.database_url = postgres.url
            services.append(postgres.process_spec())
        if "redis_url" in self._external_servers:
            check_redis(self.redis_url)
        else:
            valkey = EmbeddedValkey(self.data_dir / "valkey")
            valkey.prepare()
            self.redis_url = valkey.url
            services.append(valkey.process_spec())
        self._launch(services)

    def _programs(self) -> list[ProcessSpec]:
        # h11 reads 64 KiB of headers at most; uvicorn's other parser keeps any number of them in memory.
        options = ["--http", "h11", "--no-proxy-headers", "--timeout-graceful-shutdown", "3"]
        address = ["--host", self.settings.host, "--port", str(self.settings.port)]
        # Name, module with arguments, check of its readiness, seconds to stop in, and the settings kept from it.
        programs: Sequence[tuple[str, list[str], Callable[[], bool], float, Collection[str]]] = (
            (
                "api",
                ["uvicorn", "api.main:app", *address, *options],
                lambda: _is_ok(f"{self.url}/livez"),
                8,
                PROVIDER_SECRETS,
            ),
            ("scheduler", ["scheduler"], lambda: True, 8, ()),
            # Preparing a job can be repeated without loss.
            (
                "prepare-worker",
                ["worker", "prepare"],
                lambda: ping_worker("prepare", self.redis_url),
                5,
                KEPT_FROM_WORKERS,
            ),
            (
                "train-worker",
                ["worker", "train"],
                lambda: ping_worker("train", self.redis_url),
                self._drain_seconds,
                KEPT_FROM_WORKERS,
            ),
        )
        return [
            ProcessSpec(
                name=name,
                command=[sys.executable, "-m", *module],
                environment=self._environment(without),
                ready=ready,
                grace_seconds=grace_seconds,
                ready_seconds=READY_SECONDS,
            )
            for name, module, ready, grace_seconds, without in programs
        ]

    def _environment(self, without: Collection[str]) -> dict[str, str]:
        """Return the settings as environment variables of a Python program; no model hub is used."""
        return {
            **self.settings.environment(without=without),
            "GREENTUNE_DATA_DIR": str(self.data_dir),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "HF_HUB_OFFLINE": "1",
            **python_environment(),
        }

    def _launch(self, services: Sequence[ProcessSpec]) -> None:
        """Start services side by side, and wait for each to be ready."""
        assert self._watchdog is not None, "the stack has been entered"
        begin = time.monotonic()
        waiting = {}
        for service in services:
            process = ManagedProcess(service, self.logs / f"{service.name}.log", self._watchdog)
            self._processes[service.name] = process
            process.start()
            waiting[service.name] = process
        while waiting:
            for name, process in list(waiting.items()):
                how = process.poll_exit()
                if how is not None:
                    raise process.describe_failure(f"did not start: {how}")
                if process.spec.ready():
                    self._print_line(f"{name}: ready after {time.monotonic() - begin:.1f} s")
                    del waiting[name]
                elif time.monotonic() - begin > process.spec.ready_seconds:
                    raise process.describe_failure(f"is not ready after {process.spec.ready_seconds:g} s")
            self.wait(POLL_SECONDS)

    def _wait_until_ready(self) -> None:
        """Wait until the service is ready; raises `CommandError` with what is missing after `READY_SECONDS`."""
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ok(f"{self.url}/readyz"):
            self.restart_exited()
            if time.monotonic() > deadline:
                answer = httpx.get(f"{self.url}/readyz", trust_env=False)
                raise CommandError(f"the service is not ready after {READY_SECONDS:g} s: {answer.text}")
            self.wait(POLL_SECONDS)


def _is_ok(url: str) -> bool:
    """Return whether a health check answers "ok"; a service that cannot schedule jobs is `degraded`."""
    try:
        answer = httpx.get(url, timeout=5, trust_env=False)
        return answer.is_success and answer.json().get("status") == "ok"
    except (httpx.HTTPError, ValueError):
        return False
