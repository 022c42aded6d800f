"""Specifications of sources, such as `uk?region=13&url=http://127.0.0.1:8000`: options, keys, basis, yearly mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx
import pycountry

from greencore.carbon.errors import InvalidSpec
from greencore.carbon.series import Basis, EmissionFactors, Signal
from greencore.carbon.static import WORLD, StaticMean, has_yearly_mean

URL = "url"
STATIC = "static"
TRACE = "trace"

# Options of the providers whose zones begin with a country's code, such as DE, NO-NO2 or US-CAL-CISO.
_PLACE_OPTIONS = {"electricity-maps": "zone", "energy-charts": "country"}

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
    for key, value in _parse_query(query):
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


def static_mean(spec: str, zone: str) -> StaticMean:
    """Return the yearly mean to use for a zone without readings.

    The country is that of the option `static=FRA` or of `static:FRA`; for `static` the zone itself; for `uk` Great
    Britain; for `electricity-maps` and `energy-charts` the country code at the start of the provider's zone name
    (US-CAL-CISO, NO-NO2, de). Otherwise it is the world's.
    """
    name, mark, argument = split_spec(spec)
    if name == STATIC:
        return _mean_of(argument or zone, source=STATIC)
    options = dict(_parse_query(argument if mark == "?" else argument.partition("?")[2]))
    return _mean_of(options.get(STATIC) or _country(name, options, zone))


def spec_basis(spec: str) -> Basis:
    """Return the basis of a source's values by its specification; the column of a trace may differ from it."""
    name, mark, argument = split_spec(spec)
    options = dict(_parse_query(argument if mark == "?" else argument.partition("?")[2]))
    signal: Signal = "marginal" if name == "watttime" or options.get("signal") == "marginal" else "average"
    usual: EmissionFactors = "direct" if name == "uk" or signal == "marginal" else "lifecycle"
    factors = options.get("emission_factors", usual)
    return Basis(signal, "direct" if factors == "direct" else "lifecycle")


def split_spec(spec: str) -> tuple[str, str, str]:
    """Split a specification into the name before the first ":" or "?", that mark, and the argument after it."""
    for place, letter in enumerate(spec):
        if letter in ":?":
            return spec[:place], letter, spec[place + 1 :]
    return spec, "", ""


def _parse_query(query: str) -> list[tuple[str, str]]:
    # "+" is literal here (as in +00:00), not a space.
    return parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)


def _country(name: str, options: Mapping[str, str], zone: str) -> str:
    """Return the country of a provider's zone by its ISO code, "WORLD" where the name does not tell it."""
    if name == "uk":
        return "GBR"
    if name not in _PLACE_OPTIONS:
        return WORLD
    code = options.get(_PLACE_OPTIONS[name], zone).partition("-")[0].upper()
    # Energy-Charts names Great Britain so.
    return "GBR" if code == "UK" else code if len(code) == 2 else WORLD


def _mean_of(country: str, *, source: str | None = None) -> StaticMean:
    code = country.upper()
    if code == WORLD or not has_yearly_mean(code):
        return StaticMean()
    found = pycountry.countries.get(alpha_2=code)
    return StaticMean(code, source or f"static ({code if found is None else found.alpha_3})")
