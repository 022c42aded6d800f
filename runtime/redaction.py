"""Redacts secrets in log lines: in messages, fields and tracebacks."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr
from structlog.typing import EventDict

from runtime.settings import Settings

MASK = "[redacted]"
# A shorter secret would also match ordinary words; one in a URL is still found by `PATTERNS`.
SHORTEST_SECRET = 6
MAX_DEPTH = 8

SENSITIVE_FIELD = re.compile(
    r"(proxy-)?authorization|(set-)?cookie|.*(?:^|[-_])(password|passwd|secret|token|secret_key|api_key|api-key)",
    re.IGNORECASE,
)
PATTERNS = (
    (re.compile(r"gtk_[A-Za-z0-9_-]{12,}"), f"gtk_{MASK}"),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]{8,}"), f"whsec_{MASK}"),
    # postgresql://user:password@host, and redis://:password@host
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@?#'\"]*):[^\s/@]+@"), rf"\1:{MASK}@"),
    (re.compile(r"(greentune_session=)[^\s;,'\"]+"), rf"\1{MASK}"),
    # A header line, a dictionary item, and a pair of an ASGI scope.
    (re.compile(r"((?:authorization|cookie)\s*[:=]\s*)(?=\S)[^'\"\r\n]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"((?:authorization|cookie)\\*['\"]\s*[:,]\s*b?\\*['\"])[^'\"\\]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
)


class Redaction:
    """Structlog processor that masks secrets; the last before rendering, so that it also sees tracebacks.

    Secrets of the settings and of the trace collector are matched by value; keys, webhook secrets, credentials in
    headers and passwords in URLs by their form.
    """

    def __init__(self, settings: Settings) -> None:
        spellings = {spelling for secret in _secrets(settings) for spelling in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, _: object, __: str, event: EventDict) -> EventDict:
        return {name: self._clean_field(name, value) for name, value in event.items()}

    def text(self, text: str) -> str:
        """Return the text with each secret masked."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for pattern, masked in PATTERNS:
            text = pattern.sub(masked, text)
        return text

    def _clean_field(self, name: str, value: object, depth: int = 0) -> object:
        if value is not None and SENSITIVE_FIELD.fullmatch(name):
            return MASK
        return self._clean(value, depth)

    def _clean(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value)
        if depth < MAX_DEPTH and isinstance(value, Mapping):
            return {self.text(str(key)): self._clean_field(str(key), item, depth + 1) for key, item in value.items()}
        if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
            return [self._clean(item, depth + 1) for item in value]
        # The form in which a renderer would write it.
        return self.text(repr(value))


def _secrets(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
    urls = (settings.database_url, settings.redis_url, settings.otlp_endpoint or "")
    for url in urls:
        # By pattern: no parser finds a password with a character that is invalid in a URL.
        written = re.search(r"://[^:@/]*:(.+)@", url)
        if written:
            yield written[1]
        try:
            yield urlsplit(url).password or ""
        except ValueError:
            continue
    for variable in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        for header in os.environ.get(variable, "").split(","):
            yield header.partition("=")[2].strip()


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret plain, URL-encoded, and escaped as a string within a string."""
    for plain in (secret, unquote(secret)):
        if len(plain) >= SHORTEST_SECRET:
            yield from (plain, quote(plain, safe=""), json.dumps(plain)[1:-1], repr(plain)[1:-1])
