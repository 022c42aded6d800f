"""`/`: the jobs that match the URL's filter, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from api.charts import loss_curves
from api.dashboard.jobs.list_filter import LABEL_FIELD, read_filter
from api.dashboard.page import POLL_SECONDS, Page, PageDep
from api.figures import format_minute
from api.http.content_negotiation import prefers_html
from api.http.problems import invalid_fields
from api.jobs.schemas import EtaOut, JobOut, jobs_out
from greencore.carbon.accounting.pricing import known_emissions
from runtime.site import UNKNOWN_ZONE
from store.intensity.readings import GridRepository
from store.lifecycle.status import FINAL, HELD_BY_A_WORKER, JobStatus
from store.repositories.jobs import MAX_OPEN_COUNT, JobFilter, JobRepository
from store.tables import IntensityReading

JOBS_ON_A_PAGE = 50
IDLE_POLL_SECONDS = 20  # where all jobs shown are over: new ones are submitted, and emissions are settled

# Of a loss curve, in its SVG's units; a line on the edge would be cut in half.
WIDTH, HEIGHT, MARGIN = 96, 24, 2

router = APIRouter()


@dataclass(frozen=True)
class LossCurve:
    """Losses as the points of an SVG polyline, with its end point and the first and last loss."""

    points: str
    end: tuple[float, float]
    first: float
    last: float

    @classmethod
    def of(cls, losses: Sequence[float] | None) -> "LossCurve | None":
        """Build the curve of at least two losses, evenly spaced."""
        if losses is None:
            return None
        low, high = min(losses), max(losses)
        places = [
            (
                round(MARGIN + index * (WIDTH - 2 * MARGIN) / (len(losses) - 1), 1),
                round(MARGIN + (high - loss) / ((high - low) or 1) * (HEIGHT - 2 * MARGIN), 1),
            )
            for index, loss in enumerate(losses)
        ]
        return cls(" ".join(f"{x:g},{y:g}" for x, y in places), places[-1], losses[0], losses[-1])


@dataclass(frozen=True)
class JobRow:
    """A job; `intensity` is its zone's newest reading, `curve` is None before the second step."""

    job: JobOut
    now: datetime
    intensity: IntensityReading | None
    curve: LossCurve | None

    @property
    def is_over(self) -> bool:
        return self.job.status in FINAL

    @property
    def epochs(self) -> str:
        """Number of the running epoch, else of those done."""
        progress = self.job.progress
        if self.job.status in HELD_BY_A_WORKER and progress.epochs_done < progress.epochs:
            return f"epoch {progress.epochs_done + 1} of {progress.epochs}"
        return f"{progress.epochs_done} of {progress.epochs} epochs"

    @property
    def expected(self) -> tuple[str, str] | None:
        """Expected end, and its earliest and latest time."""
        eta = self.job.eta
        if eta is None or self.is_over:
            return None
        return format_minute(eta.finishes_at, self.now), _span(eta, self.now)


@dataclass(frozen=True)
class Totals:
    """Sums over the rows; `estimated` where part of one is an estimate.

    The emissions lack those of `unpriced_kwh`; `known_gco2e` is None where no energy has a price.
    """

    energy_kwh: float
    known_gco2e: float | None
    estimated: bool
    unpriced_kwh: float

    @classmethod
    def of(cls, jobs: Sequence[JobOut]) -> "Totals":
        bases = [job.emissions_basis for job in jobs if job.emissions_basis]
        energy_kwh, unpriced_kwh = sum(job.energy_kwh for job in jobs), sum(job.unpriced_kwh for job in jobs)
        emissions_gco2e = sum(job.emissions_gco2e for job in jobs)
        return cls(
            energy_kwh=energy_kwh,
            known_gco2e=known_emissions(emissions_gco2e, energy_kwh=energy_kwh, unpriced_kwh=unpriced_kwh),
            estimated=any(basis.estimated or basis.energy_estimated for basis in bases),
            unpriced_kwh=unpriced_kwh,
        )


@router.get("/")
def jobs_page(request: Request, page: PageDep) -> Response:
    """Render the jobs; the page polls less often where all of them are over."""
    shown, errors, needs_redirect = read_filter(request.query_params.multi_items())
    if errors and not prefers_html(request):
        raise invalid_fields(errors)
    if needs_redirect and not errors:
        return RedirectResponse(shown.link, HTTPStatus.SEE_OTHER)
    repository, owner = JobRepository(page.session), page.principal.filter_owner(shown.owner)
    which = JobFilter(
        after=shown.after,
        owner=owner,
        status=shown.status,
        zone=shown.zone,
        name=shown.name,
        model=shown.model,
        labels=shown.labels,
    )
    readings = _readings(page)
    counts = repository.count_open(owner=owner)
    shown_readings = [[zone, r.start.isoformat(), r.gco2e_per_kwh, r.estimated] for zone, r in readings.items()]
    tag_parts = [shown.link, counts, shown_readings]
    if page.if_none_match is not None and not errors:
        known = repository.revisions(limit=JOBS_ON_A_PAGE, **which)
        page.check_etag(*tag_parts, known.data, known.has_more)
    values: dict[str, Any] = {
        "title": "Jobs",
        "here": "jobs",
        "filter": shown,
        "now": page.now,
        "errors": {error.field: error.message for error in errors},
        "label_field": LABEL_FIELD,
        "statuses": list(JobStatus),
        "zones": [*sorted(page.context.settings.zones), UNKNOWN_ZONE],
        "models": sorted(page.context.catalogue),
        "counts": counts,
        "most": MAX_OPEN_COUNT,
    }
    if errors:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return page.render("jobs.html", **values, status=status, rows=[], older=None, poll_seconds=None)
    found = repository.page(limit=JOBS_ON_A_PAGE, **which)
    page.check_etag(*tag_parts, [(job.id, job.revision) for job in found.data], found.has_more)
    jobs = jobs_out(page.session, found.data)
    losses = loss_curves(page.session, [job.id for job in jobs])
    return page.render(
        "jobs.html",
        **values,
        rows=[JobRow(job, page.now, readings.get(job.zone or ""), LossCurve.of(losses.get(job.id))) for job in jobs],
        totals=Totals.of(jobs),
        older=shown.older_link(jobs[-1].id) if found.has_more else None,
        poll_seconds=POLL_SECONDS if any(job.status not in FINAL for job in jobs) else IDLE_POLL_SECONDS,
    )


def _readings(page: Page) -> dict[str, IntensityReading]:
    """Return the newest reading of each zone that has one within the stale limit."""
    settings = page.context.settings
    found = GridRepository(page.session).newest_readings([*sorted(settings.zones), UNKNOWN_ZONE], at=page.now)
    return {zone: found[zone] for zone in sorted(found) if found[zone].end + settings.stale_limit >= page.now}


def _span(eta: EtaOut, now: datetime) -> str:
    """Format the earliest and latest end, without dates where both are on the day of the expected end."""
    ends = (eta.earliest, eta.latest)
    one_day = {end.astimezone(UTC).date() for end in (*ends, eta.finishes_at)}
    return " – ".join(f"{end.astimezone(UTC):%H:%M}" if len(one_day) == 1 else format_minute(end, now) for end in ends)
