"""Resolves keys and sessions to principals, by the database or a cache of a few seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from api.access.keys import is_key, key_digest
from api.access.principal import Principal
from api.access.sessions import BrowserSession
from greencore.clock import Clock
from store.database import Database
from store.repositories.keys import KeyRepository, get_unusable_reason
from store.tables import ApiKey

CACHE_SECONDS = 3.0
MAX_CACHED = 10_000


class KeyRefused(Exception):
    """A key cannot be used; the text says why and what to do. `key_id` is None if there is no such key."""

    def __init__(self, detail: str, key_id: str | None = None) -> None:
        super().__init__(detail)
        self.key_id = key_id


@dataclass(frozen=True)
class _CachedPrincipal:
    principal: Principal
    expires_at: datetime | None
    until: float


class Authenticator:
    """Resolves keys and sessions to principals: one indexed query, or none within `CACHE_SECONDS` of the last.

    A key that is revoked through this API process is refused at once; one that is revoked by another process or by
    `greentune keys revoke` may be accepted for those seconds. Expiry always takes effect at once.
    """

    def __init__(self, database: Database, secret: str, clock: Clock) -> None:
        self._database = database
        self._secret = secret
        self._clock = clock
        # Separate dictionaries, since digests are secret and ids are not. Single dictionary operations need no lock.
        self._by_digest: dict[str, _CachedPrincipal] = {}
        self._by_id: dict[str, _CachedPrincipal] = {}
        self._by_session: dict[str, _CachedPrincipal] = {}

    def cached_key_principal(self, text: str) -> Principal | None:
        """Return the principal of a key's text from the cache; None if it is unknown or not in key form."""
        return self._get_cached(self._by_digest, key_digest(text, self._secret)) if is_key(text) else None

    def cached_session_principal(self, session: BrowserSession) -> Principal | None:
        """Return the principal of a browser's session from the cache; None if unknown."""
        return self._get_cached(self._by_session, session.id)

    def authenticate_key(self, text: str) -> Principal:
        """Return the principal of a key's text. Raises `KeyRefused`."""
        if not is_key(text):
            raise KeyRefused("not a key: a key begins with gtk_, and its last 8 characters are its checksum")
        known = self.cached_key_principal(text)
        if known is not None:
            return known
        wanted = key_digest(text, self._secret)
        return self._load_principal(lambda keys: keys.by_digest(wanted), self._by_digest, wanted)

    def authenticate_session(self, session: BrowserSession) -> Principal:
        """Return the principal of a browser's session, as its signed cookie names it. Raises `KeyRefused`."""
        known = self.cached_session_principal(session)
        if known is not None:
            return known
        return self._load_principal(
            lambda keys: keys.get(session.key_id), self._by_session, session.id, session=session
        )

    def is_current(self, principal: Principal) -> bool:
        """Return whether a principal's key or session can still be used, for the same owner and role as before."""
        session, key_id = principal.session, principal.key_id
        if key_id is None:
            return True
        try:
            if session is None:
                known = self._get_cached(self._by_id, key_id)
                return principal == (known or self._load_principal(lambda keys: keys.get(key_id), self._by_id, key_id))
            return session.expires_at > self._clock() and principal == self.authenticate_session(session)
        except KeyRefused:
            return False

    def forget_key(self, key_id: str) -> None:
        """Drop a key and its sessions from the cache."""
        for memory in (self._by_digest, self._by_id, self._by_session):
            for name, found in list(memory.items()):
                if found.principal.key_id == key_id:
                    memory.pop(name, None)

    def forget_session(self, session: BrowserSession) -> None:
        """Drop a browser's session from the cache."""
        self._by_session.pop(session.id, None)

    def _get_cached(self, memory: dict[str, _CachedPrincipal], name: str) -> Principal | None:
        found = memory.get(name)
        if found is None or found.until < time.monotonic():
            return None
        expired = found.expires_at is not None and found.expires_at <= self._clock()
        return None if expired else found.principal

    def _load_principal(
        self,
        find: Callable[[KeyRepository], ApiKey | None],
        memory: dict[str, _CachedPrincipal],
        name: str,
        *,
        session: BrowserSession | None = None,
    ) -> Principal:
        now = self._clock()
        with self._database.session() as transaction:
            keys = KeyRepository(transaction)
            key = find(keys)
            if key is None:
                raise KeyRefused("this key is not known here: ask an operator for one")
            why = get_unusable_reason(key, at=now)
            if why is not None:
                raise KeyRefused(f"this key ({key.id}) has been {why}: ask an operator for another one", key.id)
            if session is not None and keys.is_session_ended(session.id):
                raise KeyRefused("this session was signed out: sign in again at /sign-in", key.id)
            keys.record_use(key, at=now)
            principal = Principal(key.owner, "operator" if key.role == "operator" else "user", key.id, session)
        if len(memory) >= MAX_CACHED:
            memory.clear()
        memory[name] = _CachedPrincipal(principal, key.expires_at, time.monotonic() + CACHE_SECONDS)
        return principal
