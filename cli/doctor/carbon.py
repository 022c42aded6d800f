"""Checks of the carbon sources: whether their keys are set, and with `--online` whether they answer."""

from collections import defaultdict
from collections.abc import Iterator

from cli.doctor.check import CheckResult
from cli.remote.figures import measured_or_estimated
from greencore.carbon import CarbonError, Source, open_source
from runtime.settings import Settings

KEYS = {
    "electricity-maps": ("electricity_maps_token",),
    "watttime": ("watttime_user", "watttime_password"),
}


def run_checks(settings: Settings, *, online: bool) -> Iterator[CheckResult]:
    """Check each source and the site; with `online`, request the intensity of each zone."""
    zones = defaultdict(list)
    for zone, spec in settings.zones.items():
        zones[_name(spec)].append(zone)
    if not zones:
        yield CheckResult("zones", "failed", "there is none", 'set GREENTUNE_ZONES, as {"FR": "static"}')
    opened: dict[str, Source] = {}
    for name, of in sorted(zones.items()):
        faults = []
        for zone in of:
            try:
                opened[zone] = open_source(settings.zones[zone], zone, credentials=settings.credentials)
            except CarbonError as error:
                faults.append(f"{zone}: {error}")
        yield _source(settings, name, of, faults)
    yield _site(settings)
    if not online:
        yield CheckResult("carbon sources", "skipped", "not asked", "--online asks each zone's source once")
        return
    for zone, source in opened.items():
        yield _answer(zone, settings.zones[zone], source)


def _site(settings: Settings) -> CheckResult:
    site = settings.site
    if site is None:
        found = "not known: training here is priced at the world's mean, and no job that asks for a zone runs here"
        return CheckResult("site", "warning", found, 'set GREENTUNE_SITE, as FR or {"zone": "FR", "pue": 1.2}')
    return CheckResult("site", "ok", f"{site.zone}, PUE {site.pue:g}")


def _source(settings: Settings, name: str, zones: list[str], faults: list[str]) -> CheckResult:
    variables = {f"GREENTUNE_{key}".upper(): getattr(settings.credentials, key) for key in KEYS.get(name, ())}
    missing = [variable for variable, value in variables.items() if value is None]
    if missing:
        found = f"needed by {', '.join(zones)}: {', '.join(missing)} is not set"
        mend = f"set {' and '.join(missing)}, or another source for the zones"
        return CheckResult(f"source {name}", "failed", found, mend)
    if faults:
        return CheckResult(f"source {name}", "failed", "; ".join(faults), "correct these entries of GREENTUNE_ZONES")
    needs = f"{' and '.join(variables)} set" if variables else "no key needed"
    return CheckResult(f"source {name}", "ok", f"{', '.join(zones)}; {needs}")


def _answer(zone: str, spec: str, source: Source) -> CheckResult:
    try:
        reading = source.latest()
    except CarbonError as error:
        mend = "see whether the provider is reached from here; meanwhile older readings and averages are used"
        return CheckResult(f"zone {zone}", "failed", f"{_name(spec)} gives no reading: {error}", mend)
    how = measured_or_estimated(estimated=reading.estimated)
    return CheckResult(f"zone {zone}", "ok", f"{reading.gco2e_per_kwh:.4g} gCO2e/kWh, {how}, {reading.source}")


def _name(spec: str) -> str:
    return spec.partition("?")[0].partition(":")[0]
