"""The smallest ρ at which a job can train, and the check of its policy against it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from greencore.backprop import BudgetTooSmall
from greencore.backprop.cost.by_length import Lengths
from greencore.policy import Policy
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.method_settings import AdaptiveSettings
from greencore.settings.run_length import RunLength
from greencore.training.methods.probe_charge import ProbeCharge
from greencore.training.methods.step_costs import StepCosts


def check_rho_floor(
    policy: Policy,
    costs: StepCosts,
    lengths: Sequence[Lengths],
    length: RunLength,
    hyperparameters: Hyperparameters,
) -> float:
    """Return the floor of a GreenTrainer job with rows of these unpadded lengths, in a run of this length.

    It is that of `costs`, whose constraints are the job's, and with `charge_probe` the most that the probes of an epoch
    at the policy's lowest ρ take; `max_steps` may cut the last. Raises `BudgetTooSmall` where that ρ is below it.
    """
    _, lowest = policy.lowest_rho()
    affordable = costs.list_affordable_tensors(lowest)
    settings = hyperparameters.adaptive or AdaptiveSettings()
    if not settings.charge_probe or lowest >= 1:  # at ρ = 1 nothing is probed
        return costs.floor
    whole = ProbeCharge(
        batches=settings.probe_batches,
        passes=-(-hyperparameters.batch_size // hyperparameters.rows_at_once),
        reselect_every=settings.reselect_every,
        row_counts=Counter(lengths),
        steps_per_epoch=length.steps_per_epoch,
        clipped=bool(hyperparameters.max_grad_norm),
    )
    epochs = [replace(whole, trained_share=length.last_epoch_share), *([whole] if length.epochs > 1 else [])]
    charge = max(epoch.compute_share(costs, costs, affordable) for epoch in epochs)
    if lowest - charge < costs.floor:
        raise BudgetTooSmall(lowest, costs.floor).charged(lowest, charge)
    return costs.floor + charge
