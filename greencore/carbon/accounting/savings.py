"""Divides what a job saved into what brought it about: less work, its gate, its queue, its owner, and lost work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from greencore.carbon.accounting.run_parts import DelayCause, RunPart, compute_shifted_emissions, price_scale
from greencore.carbon.series import IntensitySeries

NO_SAVING = 1e-9  # a share that is rounding


@dataclass(frozen=True, slots=True)
class Savings:
    """Savings as shares of what the full job would have emitted; below 0 where more was emitted.

    `less_work` is due to the FLOPs left out; `moved_in_time` to the job's gate, which put work off or interrupted it,
    with the energy that stopping and loading again took; `queueing` to the time that it waited for a worker;
    `owner_pause` to the time that its owner had it paused, or took to retry it; `lost_work` to work that was in no
    result, since a worker was lost or an attempt failed: its emissions, and that the rest was done later. Together
    they are the whole saving.
    """

    less_work: float
    moved_in_time: float
    queueing: float = 0.0
    owner_pause: float = 0.0
    lost_work: float = 0.0


def attribute_savings(
    parts: Sequence[RunPart],
    *,
    full_gco2e: float,
    earliest_start: datetime,
    series: IntensitySeries,
    gate_gco2e: float = 0.0,
    lost_gco2e: float = 0.0,
) -> Savings:
    """Each saving as a share of `full_gco2e`, the emissions of "full_now"; all 0 where that is 0.

    The delays are taken away one cause after the other, the gate's first: the difference that each makes is its own.
    `gate_gco2e` is what the energy emitted that the gate's interruptions cost, `lost_gco2e` that of other work that is
    not in the result; what the job emitted is these two and its parts. Takes and raises what
    `estimate_counterfactuals` does.
    """
    for name, emissions in (("full_gco2e", full_gco2e), ("gate_gco2e", gate_gco2e), ("lost_gco2e", lost_gco2e)):
        if not math.isfinite(emissions) or emissions < 0:
            raise ValueError(f"{name} is {emissions}: expected a finite number that is at least 0")
    if full_gco2e == 0:
        return Savings(0.0, 0.0)
    scale = price_scale(parts, earliest_start=earliest_start, series=series)

    def emitted(*delayed_by: DelayCause) -> float:
        return scale * compute_shifted_emissions(parts, earliest_start, series, delayed_by=delayed_by).emissions_gco2e

    actual = emitted("gate", "queue", "owner", "lost")
    ungated = emitted("queue", "owner", "lost")
    unqueued = emitted("owner", "lost")
    unpaused = emitted("lost")
    constant = emitted()
    return Savings(
        less_work=_share(full_gco2e - constant, full_gco2e),
        moved_in_time=_share(ungated - actual - gate_gco2e, full_gco2e),
        queueing=_share(unqueued - ungated, full_gco2e),
        owner_pause=_share(unpaused - unqueued, full_gco2e),
        lost_work=_share(constant - unpaused - lost_gco2e, full_gco2e),
    )


def _share(saved: float, of: float) -> float:
    share = saved / of
    return 0.0 if abs(share) < NO_SAVING else share
