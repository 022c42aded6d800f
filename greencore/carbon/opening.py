"""Opens a source from its specification, such as `static`, `trace:es.csv?speed=480&anchor=...` or `uk?region=13`."""

from collections.abc import Callable

from greencore.carbon.errors import InvalidSpec
from greencore.carbon.http.client import HttpLimits
from greencore.carbon.http.live_source import LiveSource, Provider
from greencore.carbon.options import Credentials
from greencore.carbon.providers.carbon_aware_sdk import open_carbon_aware_sdk
from greencore.carbon.providers.electricity_maps import open_electricity_maps
from greencore.carbon.providers.energy_charts import open_energy_charts
from greencore.carbon.providers.uk import open_uk
from greencore.carbon.providers.watttime import open_watttime
from greencore.carbon.source import Source
from greencore.carbon.static import StaticSource, has_yearly_mean
from greencore.carbon.static_means import STATIC, TRACE, extract_static_option, split_spec
from greencore.carbon.trace import open_trace
from greencore.clock import Clock, utc_now

_PROVIDERS: dict[str, Callable[[str, str, Credentials], Provider]] = {
    "uk": open_uk,
    "electricity-maps": open_electricity_maps,
    "watttime": open_watttime,
    "energy-charts": open_energy_charts,
    "carbon-aware-sdk": open_carbon_aware_sdk,
}

SOURCE_SPECS = (STATIC, f"{TRACE}:FILE", *_PROVIDERS)


def open_source(
    spec: str,
    zone: str,
    *,
    clock: Clock = utc_now,
    credentials: Credentials | None = None,
    limits: HttpLimits | None = None,
) -> Source:
    """Open the source that `spec` names, for `zone`; no request is sent.

    `static` takes the zone as a country, `static:FRA` names one; `trace:FILE` takes a CSV file, `?speed=` and
    `&anchor=`. A provider takes its options after `?`, including `url=` for another address; its keys come from
    `credentials` only, and `limits` bounds its requests. Traces and providers take `static=FRA`: see `static_mean`.
    Raises InvalidSpec for an unknown name, an invalid option or a missing key; UnknownZone and InvalidTrace as the
    sources do.
    """
    name, mark, argument = split_spec(spec)
    if name == STATIC:
        if mark == "?" or (mark and not argument):
            raise InvalidSpec(f"the source static takes a country after ':', but was given {mark + argument!r}")
        return StaticSource(zone, country=argument or None, clock=clock)
    argument, country = extract_static_option(argument, is_query=mark == "?")
    if country is not None and not has_yearly_mean(country):
        raise InvalidSpec(
            "the option 'static' is not a country with a known mean: expected an ISO 3166-1 code such as FRA, or WORLD"
        )
    if name == TRACE and mark != "?":
        return open_trace(argument, zone, clock=clock)
    opener = _PROVIDERS.get(name)
    if opener is None:
        raise InvalidSpec(f"unknown carbon source {name!r}: expected one of {', '.join(SOURCE_SPECS)}")
    if mark == ":":
        raise InvalidSpec(f"the source {name} takes its options after '?', not after ':'")
    if not zone:
        raise InvalidSpec("zone is empty: expected the name of a grid zone")
    provider = opener(argument, zone, credentials or Credentials())
    return LiveSource(provider, zone, clock=clock, limits=limits or HttpLimits())
