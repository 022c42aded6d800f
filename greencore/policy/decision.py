"""Decides ρ of an epoch from a policy and its context, and gives the reason."""

from dataclasses import dataclass

from greencore.carbon.errors import CarbonError
from greencore.carbon.series import Reading
from greencore.policy.context import PolicyContext
from greencore.policy.kinds.policy import FixedRho, Policy
from greencore.policy.rho.choices import NoChoice, RhoChoice, choose_rho
from greencore.policy.rho.smoothing import PreviousRho, smooth_rho

FALLBACK_STEP_LABELS = {
    "stale": "no longer fresh",
    "forecast": "forecast",
    "yesterday": "same hour yesterday",
    "last week": "same hour last week",
    "static": "yearly mean",
}


class IntensityMissing(CarbonError):
    """There is no intensity reading, and the policy's `on_missing` is "fail"."""


@dataclass(frozen=True, slots=True)
class RhoDecision:
    """ρ in (0, 1] of one epoch, the intensity that it is based on, and the reason.

    `intensity_gco2e_per_kwh`, `source`, `step` (of the fallback chain) and `age_seconds` (since the start of the
    reading's interval) are None where no intensity is known; `estimated` is true there, too. `ends_run`: the budget
    does not pay for this epoch, which must not start. `price_gco2e` is the marginal price of a whole epoch's learning
    in gCO2e, under budget and price policies.
    """

    rho: float
    reason: str
    intensity_gco2e_per_kwh: float | None
    source: str | None
    step: str | None
    age_seconds: float | None
    estimated: bool
    ends_run: bool = False
    price_gco2e: float | None = None


def decide_rho(policy: Policy, context: PolicyContext) -> RhoDecision:
    """Decide ρ of the epoch that is about to start.

    The policy's choice is smoothed, but never above what a budget has left. Without an intensity (and for `percentile`
    without a reading in its window) `on_missing` decides, unsmoothed: "fallback" takes ρ at the dirtiest intensity,
    since an unknown one may be dirty; "hold" keeps the previous ρ, and falls back where there is none. `budget` and
    `price` can also decide from the forecast alone, and take `rho_min` while an epoch's energy is unknown. Raises
    IntensityMissing where `on_missing` is "fail".
    """
    known, step = _in_force(context)
    choice = choose_rho(policy, context)
    described = None if known is None else _describe(known, step, context)
    if isinstance(choice, NoChoice):
        missing = choice.missing if described is None else f"{described}, but {choice.missing}"
        rho, reason = _decide_on_missing(policy, context.previous, missing, choice.ends_run)
    else:
        rho, reason = _smooth(policy, context.previous, choice, described or "")
    return RhoDecision(
        rho=rho,
        reason=reason,
        intensity_gco2e_per_kwh=None if known is None else known.gco2e_per_kwh,
        source=None if known is None else known.source,
        step=step,
        age_seconds=None if known is None else known.age_seconds(context.now),
        estimated=known is None or known.estimated or context.reading is None,
        ends_run=choice.ends_run,
        price_gco2e=choice.price_gco2e if isinstance(choice, RhoChoice) else None,
    )


def _in_force(context: PolicyContext) -> tuple[Reading | None, str | None]:
    """Return the intensity shown with the decision, and the fallback step that found it."""
    if context.reading is not None:
        return context.reading, context.step
    forecast = context.forecast
    if not len(forecast):
        return None, None
    return forecast.latest_at(context.now) or forecast.readings[0], "forecast"


def _smooth(policy: Policy, previous: PreviousRho | None, choice: RhoChoice, described: str) -> tuple[float, str]:
    if choice.ends_run:
        return choice.rho, f"{described} {choice.why}"
    lowest, highest = policy.rho_range
    rho, change = smooth_rho(choice.rho, previous, policy.smoothing, (lowest, min(highest, choice.rho_limit)))
    reason = f"{described} {choice.why}, so ρ = {choice.rho:.4g}"
    return rho, reason if change is None else f"{reason}, smoothed to {rho:.4g}: {change}"


def _decide_on_missing(policy: Policy, previous: PreviousRho | None, missing: str, ends_run: bool) -> tuple[float, str]:
    rule = policy.on_missing
    if ends_run:
        return policy.dirtiest_rho, f"{missing}: the run ends before this epoch"
    if isinstance(rule, FixedRho):
        rho, why = rule.rho, "the policy's on_missing sets"
    elif rule == "fail":
        raise IntensityMissing(f'{missing}, and the policy\'s on_missing is "fail"')
    elif rule == "hold" and previous is not None:
        rho, why = previous.rho, "the policy holds the previous"
    else:
        no_previous = "there is no previous ρ to hold, and " if rule == "hold" else ""
        rho, why = policy.dirtiest_rho, f"{no_previous}the policy falls back to its choice for the dirtiest grid,"
    return rho, f"{missing}: {why} ρ = {rho:.4g}"


def _describe(reading: Reading, step: str | None, context: PolicyContext) -> str:
    ahead = (reading.start - context.now).total_seconds()
    about = [
        reading.source,
        *([FALLBACK_STEP_LABELS.get(step, step)] if step is not None and step != "fresh" else []),
        *(["estimated"] if reading.estimated else []),
        f"in {_duration(ahead)}" if ahead > 0 else f"{_duration(abs(ahead))} old",
    ]
    described = f"{reading.gco2e_per_kwh:.6g} gCO2e/kWh ({', '.join(about)})"
    return described if context.reading is not None else f"no intensity reading, but a forecast of {described}"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
