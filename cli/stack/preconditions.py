"""Checks of a stack's port and of the servers that the settings name; a faulty one is a `SettingError`."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from cli.errors import SettingError
from cli.stack.embedded import find_redis_problem
from store.database import Database, InvalidDatabaseUrl
from store.pooling import TransactionPooling


def check_port(host: str, port: int) -> None:
    """Raise `SettingError` where the API could not listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As uvicorn does: a port whose last connections are in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise SettingError(
            f"--host (GREENTUNE_HOST): {host!r} is no address of this machine: {error.strerror}"
        ) from error
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno == errno.EADDRINUSE:
            raise SettingError(
                f"--port (GREENTUNE_PORT): port {port} on {host} cannot be taken ({error.strerror}): choose another one"
            ) from error
        raise SettingError(f"--host (GREENTUNE_HOST): cannot listen on {host}: {error.strerror}") from error


@contextmanager
def report_database_errors(problem: str = "cannot be used") -> Iterator[None]:
    """Raise a faulty DATABASE_URL, and what PostgreSQL answers to the block, as a `SettingError`."""
    try:
        yield
    except (InvalidDatabaseUrl, TransactionPooling) as error:
        raise SettingError(str(error)) from error
    except DBAPIError as error:
        reason = str(error.orig).strip() or type(error.orig).__name__
        raise SettingError(f"DATABASE_URL: PostgreSQL {problem}: {reason}") from error


def check_database(url: str) -> None:
    """Raise `SettingError` where no PostgreSQL accepts connections at `url`."""
    with report_database_errors("cannot be reached"), Database(url) as database:
        database.engine.connect().close()


def check_redis(url: str) -> None:
    """Raise `SettingError` where no Redis accepts writes at `url`."""
    try:
        problem = find_redis_problem(url)
    except ValueError as error:
        raise SettingError(str(error)) from error
    if problem is not None:
        raise SettingError(f"REDIS_URL: Redis cannot be used: it {problem}")
