"""Attributes a job's savings to their causes: less work, the gate, the queue, the owner, and lost work."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from greencore.carbon.accounting.pricing import check_not_negative
from greencore.carbon.accounting.run_parts import DELAY_CAUSES, RunPart, compute_shifted_emissions, price_scale
from greencore.carbon.series import IntensitySeries

NO_SAVING = 1e-9  # smaller shares are rounding errors


@dataclass(frozen=True, slots=True)
class Savings:
    """Savings as shares of the emissions of "full_now"; below 0 where more was emitted. Their sum is the whole saving.

    `less_work`: FLOPs left out; `moved_in_time`: the gate deferred or interrupted the job, less the energy of stopping
    and reloading; `queueing`: waiting for a worker; `owner_pause`: the owner's pauses, and the time until a retry;
    `lost_work`: work repeated after a lost worker or a failed attempt: its emissions, and the later hours of the rest.
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
    """Return each saving as a share of `full_gco2e`, the emissions of "full_now"; all 0 where that is 0.

    Delays are removed one cause after the other, the gate's first; each cause gets the difference that its removal
    makes. The job emitted its parts, `gate_gco2e` (energy of the gate's interruptions) and `lost_gco2e` (other work
    that is not in the result). Other arguments and errors are those of `estimate_counterfactuals`.
    """
    for name, emissions in (("full_gco2e", full_gco2e), ("gate_gco2e", gate_gco2e), ("lost_gco2e", lost_gco2e)):
        check_not_negative(name, emissions)
    if full_gco2e == 0:
        return Savings(0.0, 0.0)
    scale = price_scale(parts, earliest_start=earliest_start, series=series)

    actual, ungated, unqueued, unpaused, constant = (
        scale * compute_shifted_emissions(parts, earliest_start, series, delayed_by=delayed_by).emissions_gco2e
        for delayed_by in (DELAY_CAUSES[removed:] for removed in range(len(DELAY_CAUSES) + 1))
    )
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
