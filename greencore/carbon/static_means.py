"""Derives from a source's specification the yearly mean for its zone and the basis of its values."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

import pycountry

from greencore.carbon.options import STATIC
from greencore.carbon.series import Basis, EmissionFactors, Signal
from greencore.carbon.static import WORLD, StaticMean, has_yearly_mean

TRACE = "trace"

# Options of the providers whose zones begin with a country's code, such as DE, NO-NO2 or US-CAL-CISO.
_PLACE_OPTIONS = {"electricity-maps": "zone", "energy-charts": "country"}


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
    return _mean_of(options.get(STATIC) or _country(name, options, zone))


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
