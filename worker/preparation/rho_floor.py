"""The smallest ρ at which a job can train, and the check of its policy against it."""

from collections import Counter
from collections.abc import Sequence

from greencore.backprop import BudgetTooSmall
from greencore.backprop.cost.by_length import Lengths
from greencore.method_settings import AdaptiveSettings
from greencore.policy import Policy
from greencore.training.methods.probe_charge import ProbeCharge
from greencore.training.methods.step_costs import StepCosts


def check_rho_floor(
    policy: Policy,
    costs: StepCosts,
    settings: AdaptiveSettings,
    lengths: Sequence[Lengths],
    *,
    steps_per_epoch: int,
    clipped: bool,
) -> float:
    """Return the floor of a GreenTrainer job with rows of these unpadded lengths.

    It is that of `costs`, whose constraints are the job's, and with `charge_probe` the most that the probes of an epoch
    at the policy's lowest ρ take. Raises `BudgetTooSmall` where that ρ is below it.
    """
    _, lowest = policy.lowest_rho()
    affordable = costs.list_affordable_tensors(lowest)
    if not settings.charge_probe or lowest >= 1:  # at ρ = 1 nothing is probed
        return costs.floor
    charge = ProbeCharge(
        batches=settings.probe_batches,
        reselect_every=settings.reselect_every,
        row_counts=Counter(lengths),
        steps_per_epoch=steps_per_epoch,
        clipped=clipped,
    ).compute_share(costs, costs, affordable)
    if lowest - charge < costs.floor:
        raise BudgetTooSmall(lowest, costs.floor).charged(lowest, charge)
    return costs.floor + charge
