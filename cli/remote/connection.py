"""The commands' client, and the service's problems as errors of the command line."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CommandError, ExitCode, SettingError
from greentune.errors import Problem, ServiceError, Unreachable

if TYPE_CHECKING:
    from greentune.client import Client

DEFAULT_DATA_DIR = "var"
EXIT_CODES: Mapping[int, ExitCode] = {
    HTTPStatus.BAD_REQUEST: ExitCode.USAGE,
    HTTPStatus.UNAUTHORIZED: ExitCode.NOT_ALLOWED,
    HTTPStatus.FORBIDDEN: ExitCode.NOT_ALLOWED,
    HTTPStatus.NOT_FOUND: ExitCode.NOT_FOUND,
    HTTPStatus.CONFLICT: ExitCode.CONFLICT,
    HTTPStatus.GONE: ExitCode.NOT_FOUND,
    HTTPStatus.PRECONDITION_FAILED: ExitCode.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ExitCode.USAGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ExitCode.USAGE,
    HTTPStatus.UNPROCESSABLE_ENTITY: ExitCode.USAGE,
    HTTPStatus.BAD_GATEWAY: ExitCode.UNREACHABLE,
    HTTPStatus.SERVICE_UNAVAILABLE: ExitCode.UNREACHABLE,
    HTTPStatus.GATEWAY_TIMEOUT: ExitCode.UNREACHABLE,
}

FieldNamer = Callable[[str], str]


def open_client(url: str | None, key: str | None, *, timeout: float = 60.0, attempts: int = 4) -> "Client":
    """Return a client of the service at `url`, else at GREENTUNE_URL, else of the data folder, else at local port 8000.

    Raises `SettingError` where the address or the key is not valid.
    """
    from cli.stack.data_folder import discover_service
    from greentune.client import Client

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
    """Raise the block's field errors (422) as a `SettingError` that names each field's option."""
    try:
        yield
    except Problem as problem:
        if problem.status != HTTPStatus.UNPROCESSABLE_ENTITY or not problem.errors:
            raise
        raise SettingError(format_field_errors(problem, name_field)) from problem


def format_field_errors(problem: Problem, name_field: FieldNamer = str) -> str:
    """Format a problem's field errors on one line; empty where it has none."""
    return "; ".join(f"{name_field(fault.field)}: {fault.message}" for fault in problem.errors)


def field_to_option(field: str) -> str:
    """Return a field's option: `--batch-size` for `hyperparameters.batch_size`, `--policy: rho` for `policy.rho`."""
    name, _, within = field.removeprefix("hyperparameters.").partition(".")
    return f"--{name.replace('_', '-')}" + (f": {within}" if within else "")


def to_command_error(error: ServiceError) -> CommandError:
    """Return the command's error, with its message and exit code, for a failed request."""
    if isinstance(error, Unreachable):
        advice = "start `greentune serve`, or name the service with --url (GREENTUNE_URL)"
        return CommandError(f"{error}: {advice}", ExitCode.UNREACHABLE)
    if not isinstance(error, Problem):
        return CommandError(str(error))
    text = format_field_errors(error) or str(error)
    code = EXIT_CODES.get(error.status, ExitCode.FAILED)
    return CommandError(f"--key (GREENTUNE_KEY): {text}" if code == ExitCode.NOT_ALLOWED else text, code)
