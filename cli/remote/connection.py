"""The commands' client, and the service's problems as errors of the command line."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CommandError, ExitCode, SettingError
from cli.hyperparameters import option_of
from greentune.errors import Problem, ServiceError, Unreachable

if TYPE_CHECKING:
    from greentune.client import Client

DEFAULT_DATA_DIR = "var"
HYPERPARAMETERS = "hyperparameters."
RESOURCES = "resources."
STATUSES_BY_EXIT_CODE = {
    ExitCode.USAGE: (400, 413, 415, 422),
    ExitCode.NOT_ALLOWED: (401, 403),
    ExitCode.NOT_FOUND: (404, 410),
    ExitCode.CONFLICT: (409, 412),
    ExitCode.UNREACHABLE: (502, 503, 504),
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
    if field.startswith(HYPERPARAMETERS) and (option := option_of(field.removeprefix(HYPERPARAMETERS))):
        return option
    name, _, within = field.removeprefix(HYPERPARAMETERS).removeprefix(RESOURCES).partition(".")
    return f"--{name.replace('_', '-')}" + (f": {within}" if within else "")


def to_command_error(error: ServiceError) -> CommandError:
    """Return the command's error, with its message and exit code, for a failed request."""
    if isinstance(error, Unreachable):
        advice = "start `greentune serve`, or name the service with --url (GREENTUNE_URL)"
        return CommandError(f"{error}: {advice}", ExitCode.UNREACHABLE)
    if not isinstance(error, Problem):
        return CommandError(str(error))
    text = format_field_errors(error) or str(error)
    code = next((code for code, of in STATUSES_BY_EXIT_CODE.items() if error.status in of), ExitCode.FAILED)
    return CommandError(f"--key (GREENTUNE_KEY): {text}" if code == ExitCode.NOT_ALLOWED else text, code)
