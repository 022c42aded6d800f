"""Takes secrets out of log lines, wherever in a line they stand."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr
from structlog.typing import EventDict

from runtime.settings import Settings

MASK = "[redacted]"
# A shorter one is part of ordinary words, and would blot them out; in a URL it is found all the same.
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
    # As a header's line, as one of a dictionary, and as a pair of an ASGI scope.
    (re.compile(r"((?:authorization|cookie)\s*[:=]\s*)(?=\S)[^'\"\r\n]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"((?:authorization|cookie)\\*['\"]\s*[:,]\s*b?\\*['\"])[^'\"\\]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
)


class Redaction:
    """A structlog processor: the last before a line is rendered, so that it sees messages, fields and tracebacks.

    Known are the secrets of the settings and of this process's collector; keys, webhook secrets, credentials in headers
    and passwords in URLs are told by their form.
    """

    def __init__(self, settings: Settings) -> None:
        spellings = {spelling for secret in _secrets(settings) for spelling in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, _: object, __: str, event: EventDict) -> EventDict:
        return {name: self._clean_field(name, value) for name, value in event.items()}

    def text(self, text: str) -> str:
        """The text with a mask in place of each secret."""
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
        # As a renderer would write it, which sees nothing else of it any more.
        return self.text(repr(value))


def _secrets(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
    urls = (settings.database_url, settings.redis_url, settings.otlp_endpoint or "")
    for url in urls:
        # As written: a password with a character that a URL has no place for is found by no parser.
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
    """A secret as it is, as a URL has it, and as a string within another is written."""
    for plain in (secret, unquote(secret)):
        if len(plain) >= SHORTEST_SECRET:
            yield from (plain, quote(plain, safe=""), json.dumps(plain)[1:-1], repr(plain)[1:-1])
