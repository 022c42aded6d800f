"""Builds a policy's context before an epoch, from the stored intensities and the run so far."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from sqlalchemy.orm import Session

from greencore.carbon import Basis, IntensitySeries, Reading
from greencore.carbon.fallback import explain_missing_static
from greencore.carbon.static import highest_yearly_mean
from greencore.policy import Percentile, Policy, PolicyContext, PreviousRho
from greencore.policy.rho.utility import UtilityCurve
from planning.epoch_estimate import EpochEstimate, estimate_epoch
from runtime.settings import Settings
from store.accounting.emissions import EmissionsRepository
from store.intensity.readings import GridRepository, get_job_basis
from store.repositories.jobs import JobRepository, share_left, whole_epochs
from store.tables import Epoch, Job

SHORTEST_FORECAST = timedelta(hours=1)
LONGEST_FORECAST = timedelta(days=7)


def build_policy_context(
    session: Session, job: Job, policy: Policy, settings: Settings, *, epochs_left: int, at: datetime
) -> PolicyContext:
    """Return the policy's context at `at`, before the first of `epochs_left` epochs."""
    assert job.zone is not None
    basis = get_job_basis(job)
    estimate = estimate_epoch(session, job, settings, device=job.device)
    # Of the epochs left: `max_steps` may cut the last, and their mean keeps the sum.
    length = 1 - (job.epochs - whole_epochs(job)) / epochs_left
    span = timedelta(hours=epochs_left * length * estimate.epoch_hours) if estimate is not None else SHORTEST_FORECAST
    grid = GridRepository(session)
    until = at + min(max(span, SHORTEST_FORECAST), LONGEST_FORECAST)
    known = grid.load_snapshot(job.zone, basis, at, until)
    static = settings.static_mean(job.zone)
    found = known.resolve_intensity(at, stale_limit=settings.stale_limit, static=static)
    epochs = [epoch for epoch in JobRepository(session).epochs(job.id) if epoch.finished_at is not None]
    utility = UtilityCurve.from_json(job.utility) if job.utility else None
    window = IntensitySeries()
    if isinstance(policy, Percentile):
        window = grid.readings_between(job.zone, basis, at - timedelta(hours=policy.window_hours), at)
    return PolicyContext(
        now=at,
        reading=None if found is None else found.to_labelled_reading(),
        step=None if found is None else found.step,
        refused=explain_missing_static(basis) if found is None else None,
        window=window,
        forecast=known.forecast_from(at),
        previous=_last_rho(epochs),
        epochs_left=epochs_left,
        epoch_hours=None if estimate is None else estimate.epoch_hours * length,
        # An assumed power may be far off: a budget is not spent by it.
        epoch_kwh=None
        if estimate is None or estimate.assumed
        else estimate.epoch_kwh * length * settings.training_site.pue,
        spent_gco2e=_spent_gco2e(session, job, job.zone, basis)
        + _evaluations_gco2e(job, estimate, None if found is None else found.reading, pue=settings.training_site.pue),
        utility=utility,
        loss_per_epoch=_estimate_loss_per_epoch(epochs, utility),
    )


def _spent_gco2e(session: Session, job: Job, zone: str, basis: Basis) -> float:
    """Return the job's emissions in gCO2e; unpriced energy counts at its zone's highest known intensity, or at the
    highest yearly mean of any country where no reading is stored."""
    unpriced = EmissionsRepository(session).get_unpriced_energy(job.id)
    if not unpriced.drawn_kwh:
        return job.emissions_gco2e
    dirtiest = GridRepository(session).max_intensity(zone, basis)
    return job.emissions_gco2e + unpriced.drawn_kwh * (highest_yearly_mean() if dirtiest is None else dirtiest)


def _evaluations_gco2e(job: Job, estimate: EpochEstimate | None, reading: Reading | None, *, pue: float) -> float:
    """Return the emissions in gCO2e, at the present intensity, of the evaluations during the rest of the training."""
    if estimate is None or estimate.assumed or reading is None:
        return 0.0
    return estimate.evaluation_kwh * share_left(job) * pue * reading.gco2e_per_kwh


def _last_rho(epochs: Sequence[Epoch]) -> PreviousRho | None:
    """Return the last epoch's ρ, and for how many epochs in a row it was used."""
    if not epochs:
        return None
    rho = epochs[-1].rho_asked
    same = takewhile(lambda epoch: epoch.rho_asked == rho, reversed(epochs))
    return PreviousRho(rho, sum(1 for _ in same))


def _estimate_loss_per_epoch(epochs: Sequence[Epoch], utility: UtilityCurve | None) -> float | None:
    """Estimate the loss reduction of an epoch at ρ = 1 from the last two epochs; None where they do not allow it."""
    losses = [epoch.train_loss for epoch in epochs[-2:] if epoch.train_loss is not None]
    if utility is None or len(losses) < 2 or not all(map(math.isfinite, losses)):
        return None
    fall = losses[0] - losses[1]
    share = float(utility.normalise().at(epochs[-1].rho_asked))
    return fall / share if fall > 0 and share > 0 else None
