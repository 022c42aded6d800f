"""Connections: one engine a process, one session a piece of work."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.orm import Session, sessionmaker

WAKE_CHANNEL = "greentune_wake"
CONNECT_TIMEOUT_SECONDS = 5
# A server that is gone without a word is noticed within about half a minute instead of a quarter of an hour.
TCP = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}


class Database:
    """A PostgreSQL database; `session()` commits at its end and rolls back on an error."""

    def __init__(self, url: str, *, statement_timeout_seconds: float | None = None) -> None:
        """`url` is `postgresql://…`; raises `ValueError` for any other kind of database.

        A statement that takes longer than `statement_timeout_seconds`, waits for locks included, is given up; so is a
        transaction whose process says nothing for as long: a frozen one must not keep a job's row from the others.
        """
        self.url = make_url(url)
        if not self.url.drivername.startswith("postgresql"):
            raise ValueError(f"DATABASE_URL: GreenTune keeps its data in PostgreSQL, not {self.url.drivername}")
        # Times come back in the zone of the connection, and everything here reckons in UTC.
        options = f"{self.url.query.get('options', '')} -c timezone=UTC".strip()
        if statement_timeout_seconds is not None:
            milliseconds = round(1000 * statement_timeout_seconds)
            options += f" -c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds}"
        self.engine: Engine = create_engine(
            self.url,
            pool_pre_ping=True,
            json_serializer=_json,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS, **TCP, "options": options},
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self._sessions() as session, session.begin():
            yield session

    def dispose(self) -> None:
        self.engine.dispose()


def _json(value: object) -> str:
    """JSON as PostgreSQL takes it: it knows no NaN, which a loss may be, so that becomes null."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def wake_scheduler(session: Session) -> None:
    """Tell the scheduler, when this transaction commits, that there is something to do."""
    session.execute(text(f"NOTIFY {WAKE_CHANNEL}"))
