"""The client that a command asks with, and the service's refusals as errors of the command line."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from cli.errors import CommandError, Conflict, NotAllowed, NotFound, ServiceUnavailable, SettingError
from cli.stack.discovery import discover_service
from greentune.client import Client
from greentune.errors import Problem, ServiceError, Unreachable

DEFAULT_DATA_DIR = "var"
INVALID_REQUEST_STATUSES = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
UNAVAILABLE_STATUSES = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

FieldNamer = Callable[[str], str]


def open_client(url: str | None, key: str | None, *, timeout: float = 60.0, attempts: int = 4) -> Client:
    """A client of the service that was named, else of the one whose data folder is here, else of port 8000 here.

    Raises `SettingError` where the address or the key cannot be one.
    """
    url = (
        url
        or os.environ.get("GREENTUNE_URL")
        or discover_service(Path(os.environ.get("GREENTUNE_DATA_DIR") or DEFAULT_DATA_DIR))
    )
    try:
        return Client(url, key, timeout=timeout, attempts=attempts)
    except ValueError as error:
        option = "--key (GREENTUNE_KEY)" if "key" in str(error) else "--url (GREENTUNE_URL)"
        raise SettingError(f"{option}: {error}") from error


@contextmanager
def report_field_errors(name_field: FieldNamer) -> Iterator[None]:
    """Within the block, a field that the service refuses is called by the option that it came from."""
    try:
        yield
    except Problem as problem:
        if problem.status != HTTPStatus.UNPROCESSABLE_ENTITY or not problem.errors:
            raise
        raise SettingError(format_field_errors(problem, name_field)) from problem


def format_field_errors(problem: Problem, name_field: FieldNamer = str) -> str:
    """Each field at fault and what is expected there, on one line; empty where the problem names none."""
    return "; ".join(f"{name_field(fault.field)}: {fault.message}" for fault in problem.errors)


def field_to_option(field: str) -> str:
    """`hyperparameters.batch_size` as `--batch-size`, and `policy.rho` as `--policy: rho`."""
    name, _, within = field.removeprefix("hyperparameters.").partition(".")
    return f"--{name.replace('_', '-')}" + (f": {within}" if within else "")


def to_command_error(error: ServiceError) -> CommandError:
    """What a command says, and ends with, where the service did not do what it was asked for."""
    if isinstance(error, Unreachable):
        return ServiceUnavailable(f"{error}: start `greentune serve`, or name the service with --url (GREENTUNE_URL)")
    if not isinstance(error, Problem):
        return CommandError(str(error))
    text = format_field_errors(error) or str(error)
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return NotAllowed(f"--key (GREENTUNE_KEY): {text}")
    if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return NotFound(text)
    if error.status in (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED):
        return Conflict(text)
    if error.status in INVALID_REQUEST_STATUSES:
        return SettingError(text)
    return ServiceUnavailable(text) if error.status in UNAVAILABLE_STATUSES else CommandError(text)
