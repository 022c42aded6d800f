"""What a source's specification says by itself: whose yearly mean stands in for its zone, and what its values count."""

from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

import pycountry

from greencore.carbon.errors import InvalidSpec
from greencore.carbon.series import Basis, EmissionFactors, Signal
from greencore.carbon.static import WORLD, StaticMean, has_yearly_mean

STATIC = "static"
TRACE = "trace"


def static_mean(spec: str, zone: str) -> StaticMean:
    """The yearly mean that stands in for a zone of which nothing else is known, by the specification of its source.

    The country is the one that the option `static=FRA` names, or `static:FRA`; for `static` alone the zone itself;
    Great Britain for `uk`; and the one in whose code the provider's own name of the zone begins for `electricity-maps`
    (US-CAL-CISO, NO-NO2) and `energy-charts` (de). Where none of these holds, it is the world's.
    """
    name, mark, argument = split_spec(spec)
    if name == STATIC:
        return _mean_of(argument or zone, source=STATIC)
    query = argument if mark == "?" else argument.partition("?")[2]
    options = dict(parse_qsl(query.replace("+", "%2B")))
    of_provider = _COUNTRIES.get(name)
    named = options.get(STATIC) or (WORLD if of_provider is None else of_provider(options, zone))
    return _mean_of(named)


def spec_basis(spec: str) -> Basis:
    """What the values of a source count, as far as its specification says; a trace's own column may say otherwise."""
    name, mark, argument = split_spec(spec)
    query = argument if mark == "?" else argument.partition("?")[2]
    options = dict(parse_qsl(query))
    signal: Signal = "marginal" if name == "watttime" or options.get("signal") == "marginal" else "average"
    usual: EmissionFactors = "direct" if name == "uk" or signal == "marginal" else "lifecycle"
    factors = options.get("emission_factors", usual)
    return Basis(signal, "direct" if factors == "direct" else "lifecycle")


def split_spec(spec: str) -> tuple[str, str, str]:
    """The name before the first ":" or "?", that mark, and what follows it."""
    for place, letter in enumerate(spec):
        if letter in ":?":
            return spec[:place], letter, spec[place + 1 :]
    return spec, "", ""


def extract_static_option(argument: str, *, is_query: bool) -> tuple[str, str | None]:
    """An argument without its option `static`, and the country that the option names; None where it is not given.

    Raises InvalidSpec where it is given twice or empty.
    """
    before, mark, query = ("", "", argument) if is_query else argument.partition("?")
    parts = query.split("&")
    given = [part.partition("=")[2] for part in parts if part.partition("=")[0] == STATIC]
    if len(given) > 1 or given == [""]:
        raise InvalidSpec("the option 'static' is given twice or empty: expected one country, such as static=FRA")
    if not given:
        return argument, None
    rest = "&".join(part for part in parts if part.partition("=")[0] != STATIC)
    return f"{before}{mark}{rest}" if rest else before, given[0]


def _mean_of(country: str, *, source: str | None = None) -> StaticMean:
    code = country.upper()
    if code == WORLD or not has_yearly_mean(code):
        return StaticMean()
    return StaticMean(code, source or f"static ({_alpha_3(code)})")


def _alpha_3(code: str) -> str:
    country = pycountry.countries.get(alpha_2=code)
    return code if country is None else str(country.alpha_3)


def _electricity_maps(options: Mapping[str, str], zone: str) -> str:
    """Its zones are a country's code of two letters, or begin with one: DE, NO-NO2, US-CAL-CISO."""
    code = options.get("zone", zone).partition("-")[0]
    return code if pycountry.countries.get(alpha_2=code.upper()) is not None else WORLD


def _energy_charts(options: Mapping[str, str], zone: str) -> str:
    """Its countries are codes of two letters, with `uk` for Great Britain; `eu` and `all` are none."""
    code = options.get("country", zone).upper()
    return "GBR" if code == "UK" else code if pycountry.countries.get(alpha_2=code) is not None else WORLD


_COUNTRIES: Mapping[str, Callable[[Mapping[str, str], str], str]] = {
    "uk": lambda options, zone: "GBR",
    "electricity-maps": _electricity_maps,
    "energy-charts": _energy_charts,
}
