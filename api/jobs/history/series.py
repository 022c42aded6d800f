"""`/jobs/{id}/series`: a job's curves over time, downsampled for charts."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.charts import EnergyOut, EvaluationSeriesOut, LossOut, RhoOut, SeriesRepository
from api.dependencies import SessionDep
from api.http.etags import CACHED_RESPONSES, RevalidationDep
from api.http.problems import invalid_field
from api.http.times import RecordedTime
from api.jobs.endpoints import NOT_FOUND, JobDep
from store.repositories.jobs import JobRepository

ETAG_VERSION = "s4"  # of the response below, whose form a job's revision does not cover

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"], responses=NOT_FOUND)


class SeriesOut(BaseModel):
    """Curves by column: the entries at one index belong together. Times are milliseconds since 1970, in UTC."""

    start: datetime | None = Field(description="Earliest time in any curve")
    end: datetime | None = Field(description="Latest time in any curve")
    loss: LossOut
    energy: EnergyOut
    rho: RhoOut
    evaluation: EvaluationSeriesOut


@router.get(
    "/series",
    summary="Get loss, evaluations, power, intensity, energy and emissions over time",
    responses=CACHED_RESPONSES,
)
def get_series(
    job: JobDep,
    session: SessionDep,
    revalidation: RevalidationDep,
    points: Annotated[int, Query(ge=10, le=5000, description="Approximate maximum number of points per curve")] = 500,
    start: Annotated[
        RecordedTime | None, Query(description="Only loss and energy from this time on, in as many points")
    ] = None,
    end: Annotated[RecordedTime | None, Query(description="Only loss and energy up to this time")] = None,
) -> SeriesOut:
    """Downsampled so that no peak and no trough is lost; a time without a worker stays a gap."""
    if start is not None and end is not None and start >= end:
        raise invalid_field("start", f"given {start.isoformat()}: expected a time before {end.isoformat()}, the end")
    asked = [str(points), *(str(time and round(time.timestamp() * 1000)) for time in (start, end))]
    newest_event = JobRepository(session).newest_event_id(job.id)
    revalidation.check(f'"{ETAG_VERSION}-{job.revision}-{newest_event}-{"-".join(asked)}"')
    series = SeriesRepository(session)
    loss = series.loss(job.id, points=points, start=start, end=end)
    energy = series.energy(job.id, points=points, start=start, end=end)
    rho, evaluation = series.epochs(job.id), series.evaluations(job.id, points=points)
    times = [*loss.at[:1], *loss.at[-1:], *energy.start[:1], *energy.end[-1:], *rho.start, *evaluation.at[-1:]]
    times += [end for end in rho.end if end is not None]
    first, last = (datetime.fromtimestamp(edge(times) / 1000, UTC) if times else None for edge in (min, max))
    return SeriesOut(start=first, end=last, loss=loss, energy=energy, rho=rho, evaluation=evaluation)
