"""Predicts where a job would run before it is submitted: zone, device, epoch estimate and intensity."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from greencore.carbon import IntensitySeries, Signal
from greencore.carbon.fallback import ResolvedIntensity
from greencore.clock import HOUR
from greencore.policy import Percentile, Policy
from greencore.policy.backtesting.projected_run import MAX_PROJECTED_HOURS
from greencore.settings.hyperparameters import Hyperparameters
from planning.compute_costs import EpochWorkload
from planning.epoch_estimate import EpochEstimate, estimate_epoch_from_flops
from planning.evaluation_work import count_evaluations
from planning.peak_memory import JobSettings, list_possible_workers
from planning.placement import choose_zone, list_worker_zones
from runtime.settings import Settings
from store.intensity.readings import GridRepository
from store.repositories.jobs import NewJob
from store.repositories.workers import WorkerRepository
from store.tables import Dataset

# Assumed factors by which an intensity may differ from the expected one.
SPREAD_OF_FORECAST = 1.15
SPREAD_BEYOND_FORECAST = 1.3
SPREAD_WITHOUT_FORECAST = 1.5


@dataclass(frozen=True)
class ExpectedPlacement:
    """A zone, its live workers, device and PUE of one of them, and its expected intensity from now on.

    `has_forecast` is false if only the intensity in force is known, and assumed to stay; `past` holds the readings
    that the policy ranks by.
    """

    zone: str
    reason: str
    signal: Signal
    live_workers: int
    gpus: int
    device: str | None
    pue: float
    in_force: ResolvedIntensity | None
    expected_intensity: IntensitySeries
    has_forecast: bool
    past: IntensitySeries

    def spread(self, until: datetime) -> float:
        """Return the factor by which the mean intensity of a run until `until` may differ from the expected one."""
        if not self.has_forecast:
            return SPREAD_WITHOUT_FORECAST
        return SPREAD_OF_FORECAST if self.expected_intensity.readings[-1].end >= until else SPREAD_BEYOND_FORECAST

    @property
    def basis(self) -> str:
        """Basis of the intensities, in words."""
        if not len(self.expected_intensity):
            return "no intensity of this zone is known: emissions are null"
        if not self.has_forecast:
            within = f"{SPREAD_WITHOUT_FORECAST:g} times either way"
            return f"there is no forecast: the intensity in force is assumed to stay, within {within} (assumed)"
        return (
            f"the reading in force and the stored forecast, within {SPREAD_OF_FORECAST:g} times either way, and beyond "
            f"its end its last value, within {SPREAD_BEYOND_FORECAST:g} times (both assumed)"
        )


def predict_placement(
    session: Session, settings: Settings, new: NewJob, policy: Policy, epoch_workload: EpochWorkload, *, at: datetime
) -> tuple[ExpectedPlacement, EpochEstimate]:
    """Return the placement that the scheduler would choose, and the epoch estimate on a worker there."""
    hyperparameters = Hyperparameters.model_validate(new.hyperparameters)
    live = WorkerRepository(session).list_seen_since(since=at - timedelta(seconds=settings.lease_seconds))
    workers = list_possible_workers(
        session,
        [worker for worker in live if new.zone in (None, worker.zone) and worker.gpus >= new.gpus],
        session.get_one(Dataset, new.dataset_id),
        JobSettings.of(new.model, new.method, policy, hyperparameters, new.gpus),
    )
    grid = GridRepository(session)

    evaluations = count_evaluations(
        hyperparameters,
        length=epoch_workload.length,
        held_out_rows=epoch_workload.held_out_rows
        if new.validation_dataset_id is None
        else session.get_one(Dataset, new.validation_dataset_id).rows,
        training_rows=epoch_workload.training_rows,
        epoch_flops=epoch_workload.epoch_flops,
    )

    def estimate_on(device: str | None) -> EpochEstimate:
        return estimate_epoch_from_flops(
            session,
            settings,
            model=new.model,
            epoch_flops=epoch_workload.epoch_flops,
            device=device,
            evaluations=evaluations,
            gpus=new.gpus,
        )

    if new.zone is not None:
        zone, reason = new.zone, "requested"
    else:
        served = [zone for zone in list_worker_zones(workers) if zone in settings.zones]
        zones = served or sorted(settings.zones)
        bases = {zone: basis for zone in zones if (basis := grid.newest_basis(zone)) is not None}
        there = estimate_on(next((worker.device for worker in workers), None))
        found = choose_zone(session, zones, bases, there, epoch_workload.length.whole_epochs, at=at)
        zone = found.zone if found is not None else zones[0]
        reason = found.reason if found is not None else f"the first of {len(zones)} zones, none of which has a reading"
    serving = [worker for worker in workers if worker.zone == zone]
    device = serving[0].device if serving else None
    basis = grid.newest_basis(zone) or settings.basis(zone)
    known = grid.load_snapshot(zone, basis, at, at + MAX_PROJECTED_HOURS * HOUR)
    in_force = known.resolve_intensity(at, stale_limit=settings.stale_limit, static=settings.static_mean(zone))
    expected_intensity = known.forecast_from(at)
    past = IntensitySeries()
    if isinstance(policy, Percentile):
        past = grid.readings_between(zone, basis, at - policy.window_hours * HOUR, at)
    placement = ExpectedPlacement(
        zone=zone,
        reason=reason,
        signal=basis.signal,
        live_workers=len(serving),
        gpus=sum(worker.gpus for worker in serving),
        device=device,
        pue=serving[0].pue or 1.0 if serving else 1.0,
        in_force=in_force,
        expected_intensity=_extend_to_now(expected_intensity, in_force, zone, at),
        has_forecast=any(reading.start > at for reading in expected_intensity),
        past=past,
    )
    return placement, estimate_on(device)


def _extend_to_now(
    expected_intensity: IntensitySeries, in_force: ResolvedIntensity | None, zone: str, at: datetime
) -> IntensitySeries:
    """Return the expected intensity, preceded by the one in force if it begins after `at`."""
    begins = expected_intensity.readings[0].start if len(expected_intensity) else at + HOUR
    if in_force is None or begins <= at:
        return expected_intensity
    return IntensitySeries(
        [replace(in_force.to_labelled_reading(), zone=zone, start=at, end=begins), *expected_intensity]
    )
