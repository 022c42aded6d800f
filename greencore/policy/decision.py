"""Turns a policy and the newest intensity into ρ, with the reason in plain words."""

from dataclasses import dataclass
from datetime import datetime

from greencore.carbon.series import Reading
from greencore.policy.errors import IntensityMissing
from greencore.policy.models import FixedRho, Policy


@dataclass(frozen=True, slots=True)
class Decision:
    """ρ in (0, 1] for one epoch, and what it rests on.

    `intensity_gco2e_per_kwh`, `source` and `age_seconds` (since the reading's interval began) are None where
    there was no reading; `estimated` is true there, too, as the ρ then rests on no measurement.
    """

    rho: float
    reason: str
    intensity_gco2e_per_kwh: float | None
    source: str | None
    age_seconds: float | None
    estimated: bool


def decide(policy: Policy, reading: Reading | None, *, now: datetime, previous_rho: float | None) -> Decision:
    """ρ for the epoch that begins at `now` (aware), by the newest reading.

    Without a reading the policy's `on_missing` decides. "fallback" is the careful choice: ρ as at the
    dirtiest intensity, since what is not known may be dirty. "hold" keeps `previous_rho`, and falls back
    where there is none. Raises IntensityMissing where it is "fail".
    """
    if reading is None:
        rho, why = _without_reading(policy, previous_rho)
        return Decision(rho, f"no intensity reading: {why} ρ = {rho:.4g}", None, None, None, estimated=True)
    intensity = reading.gco2e_per_kwh
    age_seconds = reading.age_seconds(now)
    rho = policy.rho_at(intensity)
    about = [reading.source, *(["estimated"] if reading.estimated else []), f"{_duration(age_seconds)} old"]
    described = f"{intensity:.6g} gCO2e/kWh ({', '.join(about)})"
    return Decision(
        rho=rho,
        reason=f"{described} {policy.reason_at(intensity)}, so ρ = {rho:.4g}",
        intensity_gco2e_per_kwh=intensity,
        source=reading.source,
        age_seconds=age_seconds,
        estimated=reading.estimated,
    )


def _without_reading(policy: Policy, previous_rho: float | None) -> tuple[float, str]:
    rule = policy.on_missing
    if isinstance(rule, FixedRho):
        return rule.rho, "the policy's on_missing sets"
    if rule == "fail":
        raise IntensityMissing('there is no intensity reading, and the policy\'s on_missing is "fail"')
    if rule == "hold" and previous_rho is not None:
        return previous_rho, "the policy holds the previous"
    nothing_held = "there is no previous ρ to hold, and " if rule == "hold" else ""
    return policy.dirtiest_rho, f"{nothing_held}the policy falls back to its choice for the dirtiest grid,"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
