"""`greentune demo`: starts the stack, runs one job through the REST interface, reports it, and stops the stack."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console

from api.access.keys import issue_key
from cli.demo.follow import follow
from cli.demo.report import show_result
from cli.errors import CommandError
from cli.extras import require_extras
from cli.remote.connection import format_field_errors
from cli.stack.embedded import LOOPBACK
from cli.stack.service_stack import Stack
from cli.stack.signals import on_stop_signals
from greencore.clock import utc_now
from greencore.host_network import find_free_port
from greentune.client import Client
from greentune.errors import Problem, ServiceError
from runtime.settings import Settings
from runtime.site import Site
from store.database import Database
from store.repositories.keys import KeyRepository
from worker.device import device_name

MODEL = "SmolLM2-135M-Instruct"
SAMPLE_PROMPT = "Report: Wind park Halvorsen delivers 310 MW while demand sleeps.\nStatus:"
POLICY = {"kind": "steps", "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}]}
HYPERPARAMETERS = {"epochs": 6, "batch_size": 4, "learning_rate": 1e-4, "sample_prompt": SAMPLE_PROMPT}
# Wall seconds that an hour of the synthetic day takes: short enough for the epochs of a run to fall on many hours.
HOUR_SECONDS_CPU = 5.0
HOUR_SECONDS_GPU = 1.0
# An interrupted demonstration is not resumed, so that no checkpoint is needed.
DRAIN_SECONDS = 5.0
# Long enough to leave two cores to the training.
POLL_SECONDS = 1.0
# Expiry of the key, where the demonstration is killed before it revokes it.
KEY_LIFETIME = timedelta(days=1)


def run(settings: Settings) -> None:
    """Run the demonstration in the data folder of `settings`; ports, servers and zones are its own.

    Raises `CommandError` with the reason where it does not end with a fine-tuned model.
    """
    require_extras("demo", "charts", "embedded", "training")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    with as_file(files("cli.demo")) as here:
        zone = f"SYNTHETIC-{datetime.now(UTC):%m%d-%H%M%S}"
        settings = _demo_settings(settings, zone, here / "synthetic-day.csv")
        console.print(
            f"Starting the service in {settings.data_dir.resolve()}, with a PostgreSQL and a Valkey of its own"
        )
        stack = Stack(
            settings,
            print_line=lambda line: console.print(f"  {line}"),
            embed_servers=True,
            drain_seconds=DRAIN_SECONDS,
        )
        with on_stop_signals(stack.interrupt), stack, stack.running():
            try:
                _run_job(console, stack, zone, here / "dataset.jsonl")
            finally:
                console.print("\nStopping the service")


def _run_job(console: Console, stack: Stack, zone: str, dataset: Path) -> None:
    with _open_demo_client(stack) as client:
        uploaded = client.upload_dataset(dataset)
        console.print(f"Uploaded {uploaded.name}: {uploaded.rows} rows")
        job = client.submit(
            MODEL,
            uploaded.id,
            method="greentrainer",
            policy=POLICY,
            zone=zone,
            priority=100,
            hyperparameters=HYPERPARAMETERS,
            metadata={"purpose": "demo"},
        )
        console.print(f"Submitted {job.id}: {MODEL}, {HYPERPARAMETERS['epochs']} epochs")
        console.print(f"Its page, while this runs: {stack.url}{job.links.page}")
        job = follow(console, client, job.id, pause=lambda: stack.wait(POLL_SECONDS))
        epochs, artifacts = list(client.epochs(job.id)), client.artifacts(job.id)
    folder = stack.settings.job_dir(job.id).resolve() / "artifacts"
    missing = [artifact.name for artifact in artifacts if not (folder / artifact.name).is_file()]
    if missing or not artifacts:
        raise CommandError(f"{job.id} has succeeded, but {folder} lacks {', '.join(missing) or 'every file'}")
    show_result(console, job, epochs, artifacts, folder)


@contextmanager
def _open_demo_client(stack: Stack) -> Iterator[Client]:
    """Open a client of the stack; its errors are raised as `CommandError`, since no option is at fault."""
    with _issue_temporary_key(stack) as key, Client(stack.url, key) as client:
        try:
            yield client
        except ServiceError as error:
            named = format_field_errors(error) if isinstance(error, Problem) else ""
            raise CommandError(f"{error}; {named}" if named else str(error)) from error


@contextmanager
def _issue_temporary_key(stack: Stack) -> Iterator[str]:
    """Issue a user's key for the duration of the block; it is never printed."""
    with Database(stack.database_url) as database:
        now = utc_now()
        with database.session() as session:
            key, text = issue_key(
                session, stack.settings.secret, owner="demo", role="user", at=now, expires_at=now + KEY_LIFETIME
            )
        try:
            yield text
        finally:
            with database.session() as session:
                KeyRepository(session).revoke(key.id, at=utc_now())


def _demo_settings(settings: Settings, zone: str, day: Path) -> Settings:
    """Return the settings with a new zone: readings of an earlier run do not fit this run's day."""
    hour_seconds = HOUR_SECONDS_CPU if device_name() == "cpu" else HOUR_SECONDS_GPU
    source = f"trace:{day}?speed={3600 / hour_seconds:g}&anchor={datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return settings.model_copy(
        update={
            "host": LOOPBACK,
            "port": find_free_port(LOOPBACK),
            "catalogue": None,
            "zones": {zone: source},
            "site": Site(zone=zone),
            # So that its page opens in a browser on this machine without a key.
            "open_on_loopback": True,
            "tick_seconds": 1.0,
            "energy_interval_seconds": 5.0,
        }
    )
