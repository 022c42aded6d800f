"""The text of API keys: made, told from any other text, and turned into the digest that is stored instead."""

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from zlib import crc32

from sqlalchemy.orm import Session

from store.repositories.keys import KeyRepository, NewKey, Role
from store.tables import ApiKey

PREFIX = "gtk_"
RANDOM_BYTES = 32
HINT_CHARACTERS = 6
KEY_PATTERN = re.compile(r"(gtk_[A-Za-z0-9_-]{43})_([0-9a-f]{8})")


def new_key_text() -> str:
    """A new key: `gtk_`, 32 random bytes in URL-safe Base64, and the CRC-32 of both in hexadecimal digits."""
    text = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    return f"{text}_{_checksum(text)}"


def is_key(text: str) -> bool:
    """Whether a text has the form of a key and its checksum; only then is it worth a query."""
    form = KEY_PATTERN.fullmatch(text)
    return form is not None and _checksum(form[1]) == form[2]


def key_hint(text: str) -> str:
    """The first characters after the prefix: enough to know a key by, too few to guess it from."""
    return text.removeprefix(PREFIX)[:HINT_CHARACTERS]


def key_digest(text: str, secret: str) -> str:
    """The HMAC-SHA256 of a key in hexadecimal digits.

    It is looked up by equality: how long that takes tells of digests, which nobody can make without the secret.
    """
    return hmac.new(secret.encode(), f"api-key:{text}".encode(), hashlib.sha256).hexdigest()


def issue_key(
    session: Session,
    secret: str,
    *,
    owner: str,
    role: Role,
    at: datetime,
    name: str = "",
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Store a new key; gives it with its text, which is known this once."""
    text = new_key_text()
    new = NewKey(
        owner=owner, role=role, name=name, hint=key_hint(text), digest=key_digest(text, secret), expires_at=expires_at
    )
    return KeyRepository(session).add(new, at=at), text


def _checksum(text: str) -> str:
    return f"{crc32(text.encode()):08x}"
