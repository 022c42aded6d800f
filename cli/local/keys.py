"""`greentune keys` at the database: create, list and revoke API keys without an API in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import typer
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from api.access.keys import issue_key
from api.access.schemas import KeyOut
from cli.errors import CommandError, SettingError
from cli.remote.output import show_json
from cli.stack.data_folder import read_secret, secret_file
from cli.stack.embedded import EmbeddedPostgres
from cli.stack.preconditions import report_database_errors
from greencore.clock import utc_now
from greentune.models import IssuedKey
from runtime.settings import SecretKeyMissing, Settings
from store.database import Database
from store.repositories.keys import KeyRepository, Role, get_unusable_reason


def create(settings: Settings, *, owner: str, role: Role, name: str, expires_at: datetime | None) -> IssuedKey:
    """Create a key in the database, and return it with its text. Raises `CommandError`."""
    if not owner or owner != owner.strip() or not (owner + name).isprintable():
        raise SettingError("--owner and --name: expected text that can be shown, and an owner without spaces around")
    secret = _secret(settings)
    with _session(settings) as session:
        key, text = issue_key(session, secret, owner=owner, role=role, name=name, expires_at=expires_at, at=utc_now())
        return IssuedKey(**KeyOut.from_row(key).model_dump(), key=text)


def show(settings: Settings, *, as_json: bool = False) -> None:
    """List every key, newest first, without its text."""
    now = utc_now()
    with _session(settings) as session:
        keys = KeyRepository(session).all()
        if as_json:
            show_json([KeyOut.from_row(key) for key in keys])
            return
        for key in keys:
            state = get_unusable_reason(key, at=now) or f"until {_day(key.expires_at)}"
            used = f"last used {_day(key.last_used_at)}"
            typer.echo("\t".join([key.id, f"gtk_{key.hint}…", key.role, key.owner, state, used, key.name]).rstrip())


def revoke(settings: Settings, key_id: str) -> None:
    """Revoke a key; the API notices within seconds. Raises `CommandError` where there is no such key."""
    with _session(settings) as session:
        # With access to the database, another operator's key can always be made.
        if not KeyRepository(session).revoke(key_id, at=utc_now(), leave_an_operator=False):
            raise CommandError(f"there is no key {key_id!r}: `greentune keys list` shows those that there are")


def _secret(settings: Settings) -> str:
    """Return the secret that was set, else the one that `greentune serve` keeps in the data folder."""
    secret = settings.secret_key or read_secret(settings.data_dir)
    if secret is None:
        where = secret_file(settings.data_dir)
        raise SettingError(f"{SecretKeyMissing()}. `greentune serve` keeps its own in {where}, which is not there")
    return secret.get_secret_value()


@contextmanager
def _session(settings: Settings) -> Iterator[Session]:
    """Open a transaction in the database that was named, else in that of a running `greentune serve`."""
    given = "database_url" in settings.model_fields_set
    url = settings.database_url if given else EmbeddedPostgres(settings.data_dir.resolve() / "postgres").url
    hint = "" if given else f" (none was named, and no `greentune serve` runs in {settings.data_dir})"
    with report_database_errors(f"cannot be used{hint}"), Database(url) as database:
        try:
            with database.session() as session:
                yield session
        except ProgrammingError as error:
            raise CommandError(f"the database has no keys to look at; run `greentune migrate`: {error.orig}") from error


def _day(time: datetime | None) -> str:
    return "never" if time is None else f"{time:%Y-%m-%d %H:%M} UTC"
