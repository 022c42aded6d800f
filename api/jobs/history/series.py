"""`/jobs/{id}/series`: a job's curves over time, downsampled for charts."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.charts import EnergyOut, EvaluationOut, LossOut, RhoOut, SeriesRepository
from api.dependencies import SessionDep
from api.http.etags import CACHED_RESPONSES, RevalidationDep
from api.http.problems import invalid_field
from api.http.times import RecordedTime
from api.jobs.endpoints import NOT_FOUND, JobDep
from store.repositories.jobs import JobRepository

ETAG_VERSION = "s3"  # of the response below, whose form a job's revision does not cover

router = APIRouter(prefix="/jobs", tags=["jobs"])


class SeriesOut(BaseModel):
    """Curves by column: the entries at one index belong together. Times are milliseconds since 1970, in UTC."""

    start: datetime | None = Field(description="Earliest time in any curve")
    end: datetime | None = Field(description="Latest time in any curve")
    loss: LossOut
    energy: EnergyOut
    rho: RhoOut
    evaluation: EvaluationOut

    @classmethod
    def of(cls, loss: LossOut, energy: EnergyOut, rho: RhoOut, evaluation: EvaluationOut) -> "SeriesOut":
        """Build from the stored curves."""
        times = [*loss.at[:1], *loss.at[-1:], *energy.start[:1], *energy.end[-1:], *rho.start]
        times += [end for end in rho.end if end is not None]
        start, end = (_iso(min(times)), _iso(max(times))) if times else (None, None)
        return cls(start=start, end=end, loss=loss, energy=energy, rho=rho, evaluation=evaluation)


@router.get(
    "/{job_id}/series",
    summary="Get loss, power, intensity, energy and emissions over time",
    responses={**NOT_FOUND, **CACHED_RESPONSES},
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
    asked = [str(points), *(str(edge and round(edge.timestamp() * 1000)) for edge in (start, end))]
    newest_event = JobRepository(session).newest_event_id(job.id)
    revalidation.check(f'"{ETAG_VERSION}-{job.revision}-{newest_event}-{"-".join(asked)}"')
    series = SeriesRepository(session)
    return SeriesOut.of(
        series.loss(job.id, points=points, start=start, end=end),
        series.energy(job.id, points=points, start=start, end=end),
        series.rho(job.id),
        series.evaluation(job.id),
    )


def _iso(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
