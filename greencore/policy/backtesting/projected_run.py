"""Simulates a run that has not started under its policy and forecast: start, end, ρ and emissions."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from greencore.carbon.series import IntensitySeries, Reading
from greencore.clock import HOUR
from greencore.policy.backtesting.backtest import backtest
from greencore.policy.context import PolicyContext
from greencore.policy.decision import IntensityMissing, decide_rho
from greencore.policy.kinds.policy import Gate, Policy

# The cost of a simulation grows with slots and epochs; a longer run is projected with the ρ of its start.
MAX_PROJECTED_HOURS = 168.0
MAX_PROJECTED_EPOCHS = 50
RUNS = ("run", "epoch")
SOON = timedelta(seconds=1)


@dataclass(frozen=True)
class ProjectedRun:
    """Projected run: it computes for `hours` between its start and its end, `work_share` of all FLOPs at ρ = 1.

    `gco2e_per_kwh` is the mean intensity of those hours, None where no intensity is known; `why` is the reason for the
    start time.
    """

    starts_at: datetime
    ends_at: datetime
    hours: float
    work_share: float
    epochs_run: float
    gco2e_per_kwh: float | None
    why: str


def project_run(
    policy: Policy,
    forecast: IntensitySeries,
    *,
    past: IntensitySeries,
    start: datetime,
    work_hours: float,
    epochs: int,
    power_w: float,
    deadline: datetime | None,
) -> ProjectedRun:
    """Simulate a run on the forecast from `start` (aware) on; it draws `power_w` while it computes.

    `work_hours` is the run's length at ρ = 1, above 0. After the forecast its last intensity continues, but no gate
    plans there: where the forecast ends before the run could, the run starts at once. `past` holds the readings before
    `start`, which percentile policies rank by. A run longer than `MAX_PROJECTED_HOURS` keeps the ρ of its start.
    """
    _, rho_max = policy.rho_range
    longest = work_hours * rho_max
    if not len(forecast) or longest > MAX_PROJECTED_HOURS:
        return _project_at_one_rho(policy, forecast, start, work_hours, epochs)
    reach = (forecast.readings[-1].end - start) / HOUR
    window = longest + policy.gate.max_delay_hours if deadline is None else (deadline - start) / HOUR
    planned = min(window, reach, MAX_PROJECTED_HOURS)
    gated = policy.gate.mode != "none" or policy.gate.pause_above is not None
    plans = gated and planned >= longest
    if gated and not plans:
        policy = policy.model_copy(update={"gate": Gate()})
    until = start + (max(planned, work_hours) + 1) * HOUR
    result = backtest(
        policy,
        _join_series(past, forecast, start, until),
        start=start,
        work_hours=work_hours,
        epochs=min(epochs, MAX_PROJECTED_EPOCHS),
        deadline_hours=planned if plans else max(longest, 1e-6),
        forecast="perfect",
        power_w=power_w,
    )
    hours = work_hours * result.work_share
    begins = next((step.time for step in result.decisions if step.action in RUNS), start)
    assert result.finish is not None
    if gated and not plans:
        late = deadline is not None and window < longest
        why = "the deadline leaves no time to wait" if late else "the forecast does not reach far enough to plan"
    elif begins - start > SOON:
        why = "the best window begins then" if policy.gate.mode == "defer" else "the planned clean hours begin then"
    else:
        why = next((step.reason for step in result.decisions if step.action == "run"), "")
    return ProjectedRun(
        starts_at=begins,
        ends_at=result.finish,
        hours=hours,
        work_share=result.work_share,
        epochs_run=result.epochs_run * epochs / min(epochs, MAX_PROJECTED_EPOCHS),
        gco2e_per_kwh=result.emissions_g / (hours * power_w / 1000) if hours > 0 else None,
        why=why,
    )


def _project_at_one_rho(
    policy: Policy, forecast: IntensitySeries, start: datetime, work_hours: float, epochs: int
) -> ProjectedRun:
    reading = forecast.latest_at(start) or forecast.readings[0] if len(forecast) else None
    step = None if reading is None else "fresh"
    context = PolicyContext(
        now=start, reading=reading, step=step, forecast=forecast, epochs_left=epochs, epoch_hours=work_hours / epochs
    )
    try:
        rho = decide_rho(policy, context).rho
    except IntensityMissing:
        rho = policy.dirtiest_rho
    ends = start + timedelta(hours=min(work_hours * rho, 1e6))
    mean = forecast.mean(start, ends).gco2e_per_kwh if len(forecast) else None
    why = "no intensity is known" if reading is None else f"more than {MAX_PROJECTED_HOURS:g} h are not planned ahead"
    return ProjectedRun(start, ends, work_hours * rho, rho, epochs, mean, why)


def _join_series(past: IntensitySeries, forecast: IntensitySeries, start: datetime, until: datetime) -> IntensitySeries:
    """Past and forecast as one series, without a gap at `start`, and extended to `until`."""
    readings = list(forecast)
    if readings[0].start > start:
        readings[0] = replace(readings[0], start=start)
    if readings[-1].end < until:
        readings[-1] = replace(readings[-1], end=until)
    before: list[Reading] = [reading for reading in past if reading.end <= readings[0].start]
    return IntensitySeries([*before, *readings])
