"""Whom a key stands for, looked up in the database or remembered for a few seconds."""

import time
from dataclasses import dataclass
from datetime import datetime

from api.access.keys import digest, is_key
from api.access.principal import Principal
from greencore.clock import Clock
from store.database import Database
from store.keys import KeyRepository, unusable
from store.tables import ApiKey

REMEMBERED_SECONDS = 3.0
MOST_REMEMBERED = 10_000


class KeyRefused(Exception):
    """A key cannot be used; the text says why and what to do. `key_id` is None where there is no such key."""

    def __init__(self, detail: str, key_id: str | None = None) -> None:
        super().__init__(detail)
        self.key_id = key_id


@dataclass(frozen=True)
class _Remembered:
    principal: Principal
    expires_at: datetime | None
    until: float


class Authenticator:
    """Turns keys into principals: one indexed query, or none within `REMEMBERED_SECONDS` of the last.

    A key that is revoked through this API process is refused at once; one that is revoked elsewhere, by another
    process or by `greentune keys revoke`, may go on for those seconds. An expiry is always honoured at once.
    """

    def __init__(self, database: Database, secret: str, clock: Clock) -> None:
        self._database = database
        self._secret = secret
        self._clock = clock
        # By digest and by id; a dictionary's single operations need no lock.
        self._remembered: dict[str, _Remembered] = {}

    def remembered(self, credential: str) -> Principal | None:
        """Whom a key (by its text or its id) stood for a moment ago; asks nobody."""
        found = self._remembered.get(digest(credential, self._secret) if is_key(credential) else credential)
        if found is None or found.until < time.monotonic():
            return None
        expired = found.expires_at is not None and found.expires_at <= self._clock()
        return None if expired else found.principal

    def by_text(self, text: str) -> Principal:
        """The principal of a key's text. Raises `KeyRefused`."""
        if not is_key(text):
            raise KeyRefused("what was sent is not a key: one begins with gtk_, and its last 8 characters check it")
        wanted = digest(text, self._secret)
        return self.remembered(text) or self._look_up(wanted, digest=wanted)

    def by_id(self, key_id: str) -> Principal:
        """The principal of a key by its id, which a session names. Raises `KeyRefused`."""
        return self.remembered(key_id) or self._look_up(key_id, key_id=key_id)

    def forget(self, key_id: str) -> None:
        """Ask the database about a key again."""
        for credential, found in list(self._remembered.items()):
            if found.principal.key_id == key_id:
                self._remembered.pop(credential, None)

    def _look_up(self, credential: str, *, digest: str | None = None, key_id: str | None = None) -> Principal:
        now = self._clock()
        with self._database.session() as session:
            keys = KeyRepository(session)
            key = keys.by_digest(digest) if digest is not None else keys.get(key_id or "")
            if key is None:
                raise KeyRefused("this key is not known here: ask an operator for one")
            why = unusable(key, at=now)
            if why is not None:
                raise KeyRefused(f"this key ({key.id}) has been {why}: ask an operator for another one", key.id)
            keys.used(key, at=now)
            principal = _principal(key)
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[credential] = _Remembered(principal, key.expires_at, time.monotonic() + REMEMBERED_SECONDS)
        return principal


def _principal(key: ApiKey) -> Principal:
    return Principal(key.owner, "operator" if key.role == "operator" else "user", key.id)
