"""`/jobs/{id}/series`: a job's curves over time, downsampled for charts."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from api.charts import EnergySeries, EvalSeries, LossSeries, RhoSeries, SeriesRepository
from api.dependencies import SessionDep
from api.http.etags import CACHED_RESPONSES, IfNoneMatch, etag_headers, matches_etag, not_modified_response
from api.http.problems import invalid_field
from api.http.times import RecordedTime
from api.jobs.endpoints import NOT_FOUND, JobDep
from store.repositories.jobs import JobRepository

ETAG_VERSION = "s3"  # of the response below, whose form a job's revision does not cover

router = APIRouter(prefix="/jobs", tags=["jobs"])


class LossOut(BaseModel):
    """One entry for each optimiser step kept: those of lowest and highest loss in every stretch."""

    step: list[int]
    at: list[int]
    value: list[float | None] = Field(description="Null if the loss was not finite")
    mean: list[float | None] = Field(
        description="Mean loss of all steps in the same stretch, including those left out; for a smoothed curve"
    )


class EnergyOut(BaseModel):
    """One entry for each stretch of metered time, with a gap between two if no worker ran there."""

    start: list[int]
    end: list[int]
    power_w: list[float]
    intensity_gco2e_per_kwh: list[float | None] = Field(description="Null if it is not known yet")
    energy_kwh: list[float] = Field(description="Energy that the job had used by the end of the stretch")
    unpriced_kwh: list[float] = Field(description="Part of that energy without a price")
    emissions_gco2e: list[float] = Field(description="Emissions by the end of the stretch, without the unpriced energy")


class RhoOut(BaseModel):
    """One entry for each epoch."""

    epoch: list[int]
    start: list[int]
    end: list[int | None]
    asked: list[float]
    reached: list[float | None]


class EvaluationOut(BaseModel):
    """One entry for each epoch after which the model was evaluated."""

    epoch: list[int]
    at: list[int]
    loss: list[float]


class SeriesOut(BaseModel):
    """Curves by column: the entries at one index belong together. Times are milliseconds since 1970, in UTC."""

    start: datetime | None = Field(description="Earliest time in any curve")
    end: datetime | None = Field(description="Latest time in any curve")
    loss: LossOut
    energy: EnergyOut
    rho: RhoOut
    evaluation: EvaluationOut

    @classmethod
    def of(cls, loss: LossSeries, energy: EnergySeries, rho: RhoSeries, evaluation: EvalSeries) -> "SeriesOut":
        """Build from the stored curves."""
        times = [*loss.at[:1], *loss.at[-1:], *energy.start[:1], *energy.end[-1:], *rho.start]
        times += [end for end in rho.end if end is not None]
        return cls(
            start=_iso(min(times)) if times else None,
            end=_iso(max(times)) if times else None,
            loss=LossOut(**vars(loss)),
            energy=EnergyOut(**vars(energy)),
            rho=RhoOut(**vars(rho)),
            evaluation=EvaluationOut(**vars(evaluation)),
        )


@router.get(
    "/{job_id}/series",
    summary="Get loss, power, intensity, energy and emissions over time",
    response_model=SeriesOut,
    responses={**NOT_FOUND, **CACHED_RESPONSES},
)
def get_series(
    job: JobDep,
    session: SessionDep,
    response: Response,
    points: Annotated[int, Query(ge=10, le=5000, description="Approximate maximum number of points per curve")] = 500,
    start: Annotated[
        RecordedTime | None, Query(description="Only loss and energy from this time on, in as many points")
    ] = None,
    end: Annotated[RecordedTime | None, Query(description="Only loss and energy up to this time")] = None,
    if_none_match: IfNoneMatch = None,
) -> SeriesOut | Response:
    """Downsampled so that no peak and no trough is lost; a time without a worker stays a gap."""
    if start is not None and end is not None and start >= end:
        raise invalid_field("start", f"given {start.isoformat()}: expected a time before {end.isoformat()}, the end")
    asked = [str(points), *(str(edge and round(edge.timestamp() * 1000)) for edge in (start, end))]
    tag = f'"{ETAG_VERSION}-{job.revision}-{JobRepository(session).newest_event_id(job.id)}-{"-".join(asked)}"'
    if matches_etag(if_none_match, tag):
        return not_modified_response(tag)
    response.headers.update(etag_headers(tag))
    series = SeriesRepository(session)
    return SeriesOut.of(
        series.loss(job.id, points=points, start=start, end=end),
        series.energy(job.id, points=points, start=start, end=end),
        series.rho(job.id),
        series.evaluation(job.id),
    )


def _iso(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
