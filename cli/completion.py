"""Shell completion with names of the service; separate since the shell loads it at each Tab, so it imports little."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cli.errors import CommandError
from greentune.errors import ServiceError

if TYPE_CHECKING:
    from greentune.client import Client

# The longest acceptable wait after a key press.
TIMEOUT_SECONDS = 1.0
MAX_JOBS = 50


def complete_job(incomplete: str) -> list[str]:
    """Return the ids of the newest jobs."""
    return _complete_names(incomplete, lambda client: (job.id for job in client.jobs(most=MAX_JOBS)))


def complete_policy(incomplete: str) -> list[str]:
    """Return the names of stored policies."""
    return _complete_names(incomplete, lambda client: (policy.name for policy in client.policies()))


def complete_zone(incomplete: str) -> list[str]:
    """Return the zones of the service."""
    return _complete_names(incomplete, lambda client: (zone.zone for zone in client.zones()))


def _complete_names(incomplete: str, names: "Callable[[Client], Iterable[str]]") -> list[str]:
    from cli.remote.connection import open_client

    try:
        with open_client(None, None, timeout=TIMEOUT_SECONDS, attempts=1) as client:
            return [name for name in names(client) if name.startswith(incomplete)]
    except (ServiceError, CommandError):
        return []
