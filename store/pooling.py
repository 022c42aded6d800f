"""Detects a connection pooler in transaction or statement mode, behind which GreenTune cannot work."""

import asyncio
from typing import Any

import psycopg
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from store.database import connection_arguments

# A pooler with several free connections may assign the same one again by chance.
ROUNDS = 5
ANSWER_SECONDS = 10.0


class TransactionPooling(ValueError):
    """The database is behind a pooler whose sessions last for one transaction."""

    def __init__(self) -> None:
        super().__init__(
            "DATABASE_URL leads to a connection pooler in transaction or statement mode, such as PgBouncer with "
            "pool_mode = transaction. GreenTune needs dedicated sessions: for advisory locks, which elect the leading "
            "scheduler, for LISTEN, and for prepared statements. Connect to PostgreSQL itself, or set "
            "pool_mode = session for this database"
        )


def require_sessions(url: URL) -> None:
    """Raise `TransactionPooling` where two connections share a session, or one connection uses several.

    Raises `sqlalchemy.exc.OperationalError` where the database does not answer. Do not call in an event loop.
    """
    try:
        shared = asyncio.run(_shares_sessions(connection_arguments(url)))
    except (psycopg.Error, TimeoutError) as error:
        raise OperationalError(None, None, error) from error
    if shared:
        raise TransactionPooling


async def _shares_sessions(arguments: dict[str, Any]) -> bool:
    """Return whether connections share sessions, by `pg_backend_pid`: PostgreSQL has one process per session."""
    async with await _connect(arguments) as first, await _connect(arguments) as second:
        own = await _backend_pid(first)
        try:
            if await _backend_pid(second) == own or await _backend_pid(second, begin=True) == own:
                return True
        except TimeoutError:
            # It waits for a session while the first connection's is unused: sessions are not shared.
            return False
        except psycopg.errors.ProtocolViolation:  # a pooler in statement mode rejects transactions
            return True
        # The second connection has a session: the first one must have kept its own.
        for _ in range(ROUNDS):
            if await _backend_pid(first) != own:
                return True
    return False


async def _connect(arguments: dict[str, Any]) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(**arguments, autocommit=True, prepare_threshold=None)


async def _backend_pid(connection: psycopg.AsyncConnection[Any], *, begin: bool = False) -> int:
    async with asyncio.timeout(ANSWER_SECONDS):
        if begin:
            await connection.execute("BEGIN")
        row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])
