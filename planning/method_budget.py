"""Computes the budget for which `auto` chooses a job's method: its length at the expected ρ of its policy."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy.orm import Session

from greencore.clock import HOUR
from greencore.policy import Budget, Percentile, Policy, Price
from greencore.policy.kinds.by_intensity import Constant, IntensityPolicy
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.method_choice import (
    AUTO,
    MeasureShare,
    MethodBudget,
    MethodChoice,
    choose_method,
    load_frontier,
)
from greencore.settings.run_length import RunLength
from planning.placement import choose_zone, list_worker_zones
from runtime.settings import Settings
from store.intensity.readings import GridRepository
from store.repositories.workers import WorkerRepository

AHEAD = 24 * HOUR  # of a forecast, over which ρ is averaged


@dataclass(frozen=True)
class ExpectedRho:
    """Mean ρ that a policy is expected to have over a run, in (0, 1], and the basis in words."""

    rho: float
    basis: str


def find_certain_method(method: str, policy: Policy) -> str:
    """Return the method of a submission where its policy alone decides it, else the method as given.

    A budget in gCO2e and a price of the loss are kept epoch by epoch, which only GreenTrainer does.
    """
    return "greentrainer" if method == AUTO and isinstance(policy, Budget | Price) else method


def expect_rho(session: Session, settings: Settings, policy: Policy, *, zone: str | None, at: datetime) -> ExpectedRho:
    """Return the ρ of a policy in the zone, or in the cleanest one with a live worker, on average over `AHEAD`.

    Its gate is left aside. Where no intensity is known, and for a policy by more than the intensity, it is the middle
    of its range.
    """
    if isinstance(policy, Constant):
        return ExpectedRho(policy.rho, f"ρ = {policy.rho:g}")
    if isinstance(policy, Percentile):  # every rank is as likely
        rho = policy.rho_max - (policy.rho_max - policy.rho_min) / (policy.gamma + 1)
        return ExpectedRho(rho, f"a mean ρ of {rho:.3g}, over all percentiles")
    if isinstance(policy, IntensityPolicy):
        workers = WorkerRepository(session).list_seen_since(since=at - timedelta(seconds=settings.lease_seconds))
        zones = [zone] if zone is not None else list_worker_zones(workers) or sorted(settings.zones)
        grid = GridRepository(session)
        bases = {one: basis for one in zones if (basis := grid.newest_basis(one)) is not None}
        chosen = choose_zone(session, zones, bases, None, 1.0, at=at)
        if chosen is not None and chosen.zone in bases:
            snapshot = grid.load_snapshot(chosen.zone, bases[chosen.zone], at, at + AHEAD)
            forecast = snapshot.forecast_or_newest(at)
            if len(forecast):
                pieces = list(forecast.pieces(at, at + AHEAD))
                rhos = policy.rho_at_intensities(np.array([reading.gco2e_per_kwh for _, _, reading, _ in pieces]))
                rho = float(np.average(rhos, weights=[(until - begin) / HOUR for begin, until, _, _ in pieces]))
                by = f"by the intensity of {chosen.zone} over the next {AHEAD / HOUR:g} h"
                return ExpectedRho(rho, f"a mean ρ of {rho:.3g}, {by}")
    low, high = policy.rho_range
    return ExpectedRho((low + high) / 2, f"ρ = {(low + high) / 2:.3g}, the middle of its policy's range")


def choose_job_method(
    expected: ExpectedRho,
    policy: Policy,
    given: Hyperparameters,
    length: RunLength,
    measure_share: MeasureShare,
    *,
    width: int | None = None,
) -> MethodChoice:
    """Choose the method and hyperparameters of a job whose method is `auto`; `length` is that of its submission.

    `width` is that of the model's hidden states, where it is known. Raises `MethodsUnavailable`.
    """
    if find_certain_method(AUTO, policy) != AUTO:
        reason = "its policy changes the work of each epoch by what the job emits, which only GreenTrainer follows"
        return MethodChoice("greentrainer", given.model_copy(update={"lora": None}), reason)
    epochs = length.whole_epochs
    budget = MethodBudget(epochs * expected.rho, f"{epochs:.3g} at {expected.basis}")
    return choose_method(
        load_frontier(), budget, given, measure_share, steps_per_epoch=length.steps_per_epoch, width=width
    )
