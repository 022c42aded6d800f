"""Opens a source from its specification, such as `static`, `trace:es.csv?speed=480&anchor=...` or `uk?region=13`."""

from greencore.carbon.errors import InvalidSpec
from greencore.carbon.http.client import HttpLimits
from greencore.carbon.http.live_source import LiveSource
from greencore.carbon.providers.carbon_aware_sdk import CarbonAwareSdkProvider
from greencore.carbon.providers.electricity_maps import ElectricityMapsProvider
from greencore.carbon.providers.energy_charts import EnergyChartsProvider
from greencore.carbon.providers.provider import Provider
from greencore.carbon.providers.uk import UkProvider
from greencore.carbon.providers.watttime import WattTimeProvider
from greencore.carbon.source import Source
from greencore.carbon.specification import STATIC, TRACE, Credentials, read_base_url, read_options, split_spec
from greencore.carbon.static import StaticSource
from greencore.carbon.trace import open_trace
from greencore.clock import Clock, utc_now

PROVIDERS: tuple[type[Provider], ...] = (
    UkProvider,
    ElectricityMapsProvider,
    WattTimeProvider,
    EnergyChartsProvider,
    CarbonAwareSdkProvider,
)

SOURCE_SPECS = (STATIC, f"{TRACE}:FILE", *(provider.name for provider in PROVIDERS))


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
    if name == TRACE and mark != "?":
        return open_trace(argument, zone, clock=clock)
    found = next((provider for provider in PROVIDERS if provider.name == name), None)
    if found is None:
        raise InvalidSpec(f"unknown carbon source {name!r}: expected one of {', '.join(SOURCE_SPECS)}")
    if mark == ":":
        raise InvalidSpec(f"the source {name} takes its options after '?', not after ':'")
    if not zone:
        raise InvalidSpec("zone is empty: expected the name of a grid zone")
    options = read_options(name, argument, found.options)
    url = read_base_url(name, options, found.default_url)
    provider = found.open(url, zone, options, credentials or Credentials())
    return LiveSource(provider, zone, clock=clock, limits=limits or HttpLimits())
