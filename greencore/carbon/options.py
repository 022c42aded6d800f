"""Options of a provider's specification, such as `uk?region=13&url=http://127.0.0.1:8000`, and its keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx

from greencore.carbon.errors import InvalidSpec
from greencore.carbon.static import has_yearly_mean

URL = "url"
STATIC = "static"

Option = TypeVar("Option", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Keys of the providers; None or an empty string where there is none.

    White space around a key is stripped, as a file or a variable often ends in a line break. No representation
    contains a key.
    """

    electricity_maps_token: str | None = field(default=None, repr=False)
    watttime_user: str | None = field(default=None, repr=False)
    watttime_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self)):
            value: str | None = getattr(self, name)
            object.__setattr__(self, name, (value or "").strip() or None)

    def require(self, name: str, source: str) -> str:
        """Return the key of this name; raises InvalidSpec where it is missing or not valid in an HTTP header."""
        value: str | None = getattr(self, name)
        if value is None:
            raise InvalidSpec(f"the source {source} needs the key {name}, which is not set")
        if not (value.isascii() and value.isprintable()):
            raise InvalidSpec(
                f"the key {name} holds a character that is not valid in a header: expected printable ASCII"
            )
        return value


def read_options(source: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    """Parse the options in `query`, each given once and not empty; raises InvalidSpec naming the option.

    Every source takes the option `static`, which `static_mean` reads: it is checked, and left out. Messages never
    contain an option's value: it may be a key, put there by mistake.
    """
    options: dict[str, str] = {}
    # "+" is literal here (as in +00:00), not a space.
    for key, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if key not in (*known, STATIC):
            raise InvalidSpec(f"{source} has no option {key!r}: expected {' or '.join(known)}")
        if key in options:
            raise InvalidSpec(f"the option {key!r} of {source} is given twice")
        if not value:
            raise InvalidSpec(f"the option {key!r} of {source} is empty")
        options[key] = value
    if STATIC in options and not has_yearly_mean(options.pop(STATIC)):
        raise InvalidSpec(
            "the option 'static' is not a country with a known mean: expected an ISO 3166-1 code such as FRA, or WORLD"
        )
    return options


def read_base_url(source: str, options: Mapping[str, str], default: str | None) -> str:
    """Return the option `url`, without a slash at its end, else `default`.

    Raises InvalidSpec where both are missing, or where it is not plain http or https: a user name, a password or a
    query in it would be logged.
    """
    url = options.get(URL, default)
    if url is None:
        raise InvalidSpec(f"the source {source} needs the option {URL!r}, the address of the server")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise InvalidSpec(f"the option {URL!r} of {source} is not an address: expected http://HOST or https://HOST")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidSpec(
            f"the option {URL!r} of {source} carries a user name, a password or a query: "
            "expected none of them, as addresses are logged"
        )
    return url.rstrip("/")


def read_choice(
    source: str, options: Mapping[str, str], name: str, known: tuple[Option, ...], default: Option
) -> Option:
    """Return the option's value, or `default` where it is not given; raises InvalidSpec where it is not in `known`."""
    value = options.get(name, default)
    for candidate in known:
        if candidate == value:
            return candidate
    raise InvalidSpec(f"the option {name!r} of {source} is unknown: expected {' or '.join(known)}")
