"""Reads the options of a provider's specification, as in `uk?region=13&url=http://127.0.0.1:8000`."""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx

from greencore.carbon.errors import InvalidSpec

URL = "url"

Option = TypeVar("Option", bound=str)


def read_options(source: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    """The options in `query`, each given once and not empty; raises InvalidSpec naming the option.

    An option's value is never part of a message: a key may have been put there by mistake.
    """
    options: dict[str, str] = {}
    # "+" stands for itself here, and not for a space.
    for key, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if key not in known:
            raise InvalidSpec(f"{source} has no option {key!r}: expected {' or '.join(known)}")
        if key in options:
            raise InvalidSpec(f"the option {key!r} of {source} is given twice")
        if not value:
            raise InvalidSpec(f"the option {key!r} of {source} is empty")
        options[key] = value
    return options


def read_base_url(source: str, options: Mapping[str, str], default: str | None) -> str:
    """The address that `options` give, without a slash at its end, else `default`.

    Raises InvalidSpec where there is neither, or where it is not plain http or https: a user name, a password or
    a query in it would end up in logs.
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
        raise InvalidSpec(f"the option {URL!r} of {source} is no address: expected http://HOST or https://HOST")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidSpec(
            f"the option {URL!r} of {source} carries a user name, a password or a query: "
            "expected none of them, as addresses are logged"
        )
    return url.rstrip("/")


def read_choice(
    source: str, options: Mapping[str, str], name: str, known: tuple[Option, ...], default: Option
) -> Option:
    """The option's value where it is one of `known`, `default` where it is not given, else InvalidSpec."""
    value = options.get(name, default)
    for candidate in known:
        if candidate == value:
            return candidate
    raise InvalidSpec(f"the option {name!r} of {source} is unknown: expected {' or '.join(known)}")
