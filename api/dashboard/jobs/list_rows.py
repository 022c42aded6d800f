"""Rows of the jobs page: each job's figures as text, with a small loss curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from api.jobs.schemas import EtaOut, JobOut
from greencore.carbon.accounting.pricing import known_emissions
from store.lifecycle.status import FINAL, HELD_BY_A_WORKER
from store.tables import IntensityReading

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Of the curve, in its SVG's units; a line on the edge would be cut in half.
WIDTH, HEIGHT, MARGIN = 96, 24, 2


@dataclass(frozen=True)
class LossCurve:
    """Losses as the points of an SVG polyline, with its end point and the first and last loss."""

    points: str
    end: tuple[float, float]
    first: float
    last: float

    @classmethod
    def of(cls, losses: Sequence[float]) -> "LossCurve":
        """Build the curve of at least two losses, evenly spaced."""
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
    def short_id(self) -> str:
        """End of the id, in which jobs of one day differ."""
        return f"job_…{self.job.id[-8:]}"

    @property
    def is_over(self) -> bool:
        return self.job.status in FINAL

    @property
    def submitted(self) -> str:
        return format_minute(self.job.created_at, self.now)

    @property
    def epochs(self) -> str:
        """Number of the running epoch, else of those done."""
        progress = self.job.progress
        if self.job.status in HELD_BY_A_WORKER and progress.epochs_done < progress.epochs:
            return f"epoch {progress.epochs_done + 1} of {progress.epochs}"
        return f"{progress.epochs_done} of {progress.epochs} epochs"

    @property
    def ended(self) -> str | None:
        return format_minute(self.job.finished_at, self.now) if self.job.finished_at else None

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


def build_rows(
    jobs: Sequence[JobOut],
    readings: Mapping[str, IntensityReading],
    losses: Mapping[str, Sequence[float]],
    *,
    now: datetime,
) -> list[JobRow]:
    """Return a row for each job, in order; `readings` are by zone, `losses` by job id."""
    return [
        JobRow(job, now, readings.get(job.zone or ""), LossCurve.of(losses[job.id]) if job.id in losses else None)
        for job in jobs
    ]


def format_minute(time: datetime, now: datetime) -> str:
    """Format a time (UTC) to the minute; with the year where it is not the current one."""
    utc = time.astimezone(UTC)
    year = "" if utc.year == now.year else f"{utc.year} "
    return f"{utc.day} {MONTHS[utc.month - 1]} {year}{utc:%H:%M}"


def _span(eta: EtaOut, now: datetime) -> str:
    """Format the earliest and latest end, without dates where both are on the day of the expected end."""
    ends = (eta.earliest, eta.latest)
    one_day = {end.astimezone(UTC).date() for end in (*ends, eta.finishes_at)}
    return " – ".join(f"{end.astimezone(UTC):%H:%M}" if len(one_day) == 1 else format_minute(end, now) for end in ends)
