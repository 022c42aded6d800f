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


def _completion(names: "Callable[[Client], Iterable[str]]") -> Callable[[str], list[str]]:
    """Return a function that completes one of the service's names, silently with none where it does not answer."""

    def complete(incomplete: str) -> list[str]:
        from cli.remote.connection import open_client

        try:
            with open_client(None, None, timeout=TIMEOUT_SECONDS, attempts=1) as client:
                return [name for name in names(client) if name.startswith(incomplete)]
        except (ServiceError, CommandError):
            return []

    return complete


complete_job = _completion(lambda client: (job.id for job in client.jobs(most=MAX_JOBS)))
complete_policy = _completion(lambda client: (policy.name for policy in client.policies()))
complete_zone = _completion(lambda client: (zone.zone for zone in client.zones()))
