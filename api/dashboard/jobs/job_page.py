"""`/dashboard/jobs/{id}`: one job with its epochs, events and result."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from api.dashboard.jobs.job_tables import epoch_rows, event_rows, newest_epoch
from api.dashboard.jobs.job_tables import router as rows_router
from api.dashboard.page import POLL_SECONDS, PageDep
from api.jobs.artifacts import ArtifactOut
from api.jobs.endpoints import JobDep
from api.jobs.schemas import CheckpointOut, JobOut, jobs_out
from api.zones.endpoints import find_intensity
from greencore.carbon import Basis
from greencore.carbon.accounting.pricing import tracker_difference
from planning.eta import load_queue_backlog
from planning.predicted_cost import PredictedCost, PredictedRange, predict_cost
from runtime.settings import Settings
from store.accounting.emissions import EmissionsRepository
from store.intensity.readings import GridRepository, get_job_basis
from store.lifecycle.checkpoints import list_job_checkpoints
from store.lifecycle.status import FINAL, JobStatus
from store.repositories.jobs import JobRepository
from store.tables import Job

EVALUATIONS_SHOWN = 20

router = APIRouter()
router.include_router(rows_router)


@dataclass(frozen=True)
class ComparedFigure:
    """One figure, predicted with its bounds and metered; either is None where it is unknown."""

    name: str
    unit: str
    expected: PredictedRange | None
    metered: float | None

    @property
    def off_by(self) -> float | None:
        """Relative error, metered / expected - 1: below 0 where less was metered."""
        if self.expected is None or self.metered is None or not self.expected.expected:
            return None
        return self.metered / self.expected.expected - 1


@router.get("/dashboard/jobs/{job_id}")
def job_page(row: JobDep, page: PageDep) -> HTMLResponse:
    """Render a job's page, which polls until the job is over."""
    session, settings, now = page.session, page.context.settings, page.now
    over, zone = row.status in FINAL, None if row.status in FINAL else row.zone
    repository, grid = JobRepository(session), GridRepository(session)
    running_seconds = _running_seconds(row, now)
    queue = None
    if row.status is JobStatus.QUEUED:
        queue = load_queue_backlog(session, row.zone, priority=row.priority, job_id=row.id)
    basis = zone and _basis(grid, settings, row, zone)
    page.check_etag(
        row.id,
        row.revision,
        repository.newest_event_id(row.id),
        running_seconds,
        queue and [queue.running, queue.ahead],
        zone and basis and _intensity_tag(grid, zone, basis, now),
    )
    [job] = jobs_out(session, [row])
    epochs = epoch_rows(session, job.id, before=newest_epoch(row) + 1)
    return page.render(
        "job/page.html",
        title=f"{job.status} · {job.name or job.id}",
        here="job",
        job=job,
        queue=queue,
        intensity_now=zone and basis and find_intensity(grid, settings, zone, basis, now=now),
        over=over,
        epochs=epochs,
        newest=epochs.data[0] if epochs.data else None,
        evaluations=repository.newest_evaluations(job.id, limit=EVALUATIONS_SHOWN),
        mean_gco2e_per_kwh=_mean_intensity(job),
        # CodeCarbon's total of an attempt arrives at its end.
        tracker_difference=tracker_difference(row.energy_kwh, row.tracker_kwh) if over else None,
        comparison=_compare_with_prediction(session, row, pue=job.emissions_basis.pue) if job.emissions_basis else None,
        metered_hours=EmissionsRepository(session).run_hours(job.id) if job.counterfactuals else None,
        events=event_rows(session, job.id),
        artifacts=[ArtifactOut.of(artifact) for artifact in repository.artifacts(job.id)],
        files_removed_at=row.files_removed_at,
        checkpoints=[CheckpointOut.from_row(checkpoint) for checkpoint in list_job_checkpoints(session, job.id)],
        running_seconds=running_seconds,
        poll_seconds=None if over else POLL_SECONDS,
    )


def _running_seconds(job: Job, now: datetime) -> float | None:
    """Seconds from the first start to the end; whole minutes until then, as each change renders the page again."""
    if job.started_at is None:
        return None
    seconds = ((job.finished_at or now) - job.started_at).total_seconds()
    return seconds if job.finished_at is not None else seconds // 60 * 60


def _mean_intensity(job: JobOut) -> float | None:
    """Mean emissions of a kWh that the site drew (gCO2e/kWh); None while part of the energy is unpriced."""
    basis = job.emissions_basis
    if basis is None or basis.unpriced_kwh or not job.energy_kwh:
        return None
    return job.emissions_gco2e / (job.energy_kwh * basis.pue)


def _compare_with_prediction(
    session: Session, job: Job, *, pue: float
) -> tuple[PredictedCost, Sequence[ComparedFigure]] | None:
    """Return the prediction and the compared figures; None for a job that has not succeeded or has no prediction."""
    predicted = predict_cost(session, job, pue=pue) if job.status is JobStatus.SUCCEEDED else None
    if predicted is None:
        return None
    costs = [cost for epoch, cost in JobRepository(session).epoch_costs(job.id).items() if epoch > 0]
    priced = [cost.emissions_gco2e for cost in costs if cost.emissions_gco2e is not None]
    emitted = sum(priced) if len(priced) == len(costs) else None
    return predicted, [
        ComparedFigure("Time", "h", predicted.hours, predicted.metered_hours),
        ComparedFigure("Energy", "kWh", predicted.energy_kwh, sum(cost.energy_kwh for cost in costs)),
        ComparedFigure("Emissions", "gCO2e", predicted.emissions_gco2e, emitted),
    ]


def _basis(grid: GridRepository, settings: Settings, job: Job, zone: str) -> Basis:
    if job.signal is not None:
        return get_job_basis(job)
    return grid.newest_basis(zone) or settings.basis(zone)


def _intensity_tag(grid: GridRepository, zone: str, basis: Basis, now: datetime) -> list[object]:
    """Return a part of the ETag that changes with the intensity in force, by a query of one row."""
    newest = grid.newest_reading(zone, basis, at=now)
    if newest is not None and now < newest.end:
        return [newest.start.isoformat(), newest.gco2e_per_kwh]
    # The value that replaces a missing reading changes with the hour.
    return [now.replace(minute=0, second=0, microsecond=0).isoformat()]
