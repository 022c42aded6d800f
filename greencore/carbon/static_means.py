"""Derives from a source's specification the yearly mean for its zone and the basis of its values."""

from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

import pycountry

from greencore.carbon.options import STATIC
from greencore.carbon.series import Basis, EmissionFactors, Signal
from greencore.carbon.static import WORLD, StaticMean, has_yearly_mean

TRACE = "trace"


def static_mean(spec: str, zone: str) -> StaticMean:
    """Return the yearly mean to use for a zone without readings.

    The country is that of the option `static=FRA` or of `static:FRA`; for `static` the zone itself; for `uk` Great
    Britain; for `electricity-maps` and `energy-charts` the country code at the start of the provider's zone name
    (US-CAL-CISO, NO-NO2, de). Otherwise it is the world's.
    """
    name, mark, argument = split_spec(spec)
    if name == STATIC:
        return _mean_of(argument or zone, source=STATIC)
    options = _parse_options(mark, argument)
    find_country = _COUNTRIES.get(name)
    return _mean_of(options.get(STATIC) or (WORLD if find_country is None else find_country(options, zone)))


def spec_basis(spec: str) -> Basis:
    """Return the basis of a source's values by its specification; the column of a trace may differ from it."""
    name, mark, argument = split_spec(spec)
    options = _parse_options(mark, argument)
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


def _parse_options(mark: str, argument: str) -> dict[str, str]:
    query = argument if mark == "?" else argument.partition("?")[2]
    return dict(parse_qsl(query.replace("+", "%2B")))


def _mean_of(country: str, *, source: str | None = None) -> StaticMean:
    code = country.upper()
    if code == WORLD or not has_yearly_mean(code):
        return StaticMean()
    return StaticMean(code, source or f"static ({_alpha_3(code)})")


def _alpha_3(code: str) -> str:
    country = pycountry.countries.get(alpha_2=code)
    return code if country is None else str(country.alpha_3)


def _electricity_maps(options: Mapping[str, str], zone: str) -> str:
    """Return the two-letter country code at the start of a zone such as DE, NO-NO2 or US-CAL-CISO."""
    code = options.get("zone", zone).partition("-")[0]
    return code if pycountry.countries.get(alpha_2=code.upper()) is not None else WORLD


def _energy_charts(options: Mapping[str, str], zone: str) -> str:
    """Return the country, a code of two letters or `uk` for Great Britain; `eu` and `all` are not countries."""
    code = options.get("country", zone).upper()
    return "GBR" if code == "UK" else code if pycountry.countries.get(alpha_2=code) is not None else WORLD


_COUNTRIES: Mapping[str, Callable[[Mapping[str, str], str], str]] = {
    "uk": lambda options, zone: "GBR",
    "electricity-maps": _electricity_maps,
    "energy-charts": _energy_charts,
}
