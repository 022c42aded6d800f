"""Text of API keys: generates it, recognises it, and computes the digest that is stored."""

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from zlib import crc32

from sqlalchemy.orm import Session

from runtime.ids import new_id
from store.repositories.keys import KeyRepository, Role
from store.tables import ApiKey

PREFIX = "gtk_"
RANDOM_BYTES = 32
HINT_CHARACTERS = 6
KEY_PATTERN = re.compile(r"(gtk_[A-Za-z0-9_-]{43})_([0-9a-f]{8})")


def new_key_text() -> str:
    """Return a new key: `gtk_`, 32 random bytes in URL-safe Base64, and the CRC-32 of both in hexadecimal digits."""
    text = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    return f"{text}_{_checksum(text)}"


def is_key(text: str) -> bool:
    """Return whether a text has the form and the checksum of a key; no other text is looked up."""
    form = KEY_PATTERN.fullmatch(text)
    return form is not None and _checksum(form[1]) == form[2]


def key_hint(text: str) -> str:
    """Return the first characters after the prefix: enough to recognise a key, too few to guess it."""
    return text.removeprefix(PREFIX)[:HINT_CHARACTERS]


def key_digest(text: str, secret: str) -> str:
    """Return the HMAC-SHA256 of a key in hexadecimal digits.

    It is looked up by equality: the timing reveals digests only, which cannot be computed without the secret.
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
    """Store a new key; return it with its text, which is not stored."""
    text = new_key_text()
    key = ApiKey(
        id=new_id("key"),
        owner=owner,
        role=role,
        name=name,
        hint=key_hint(text),
        digest=key_digest(text, secret),
        created_at=at,
        expires_at=expires_at,
    )
    KeyRepository(session).add(key)
    return key, text


def _checksum(text: str) -> str:
    return f"{crc32(text.encode()):08x}"
