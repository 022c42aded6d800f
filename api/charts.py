"""Curves of jobs for charts, downsampled, and loss curves of many jobs for sparklines.

Times are milliseconds since 1970, in UTC.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, DateTime, Double, bindparam, cast, func, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from greencore.energy.interval import JOULES_PER_KWH
from store.tables import EnergyInterval, Epoch, Evaluation

# Longest gap between adjacent intervals; in a longer one no worker ran.
GAP_MS = 1000
# Materialised, since PostgreSQL would otherwise read the steps once for each reference.
LOSS_QUERY = text("""
    WITH shown AS MATERIALIZED (
        SELECT number, at, loss FROM steps WHERE job_id = :job_id
        AND at >= coalesce(:start, '-infinity'::timestamptz) AND at <= coalesce(:end, 'infinity'::timestamptz)
    ), ends AS (
        SELECT min(number) AS first, max(number) AS last FROM shown
    ), taken AS MATERIALIZED (
        SELECT number, at, loss, (number - first)::bigint * :stretches / (last - first + 1) AS stretch
        FROM shown, ends
    ), bounds AS (
        SELECT stretch, min(loss) AS low, max(loss) AS high, avg(loss) AS mean FROM taken GROUP BY stretch
    ), kept AS (
        SELECT min(number) AS number FROM taken JOIN bounds USING (stretch) WHERE loss = low GROUP BY stretch
        UNION SELECT min(number) FROM taken JOIN bounds USING (stretch) WHERE loss = high GROUP BY stretch
        UNION SELECT first FROM ends
        UNION SELECT last FROM ends
    )
    SELECT number, extract(epoch FROM at)::double precision * 1000, loss, mean
    FROM taken JOIN kept USING (number) JOIN bounds USING (stretch) ORDER BY number
""").bindparams(bindparam("start", type_=DateTime(timezone=True)), bindparam("end", type_=DateTime(timezone=True)))
SPARKLINE_POINTS = 40
# Each point is one index lookup, for the first step stored at or after a number; the limit keeps PostgreSQL from
# reading all steps of the jobs instead.
LOSS_CURVES_QUERY = text("""
    SELECT jobs.id, taken.number, taken.loss
    FROM jobs, generate_series(0, :points - 1) AS point, LATERAL (
        SELECT number, loss FROM steps
        WHERE job_id = jobs.id AND number >= 1 + point * (jobs.steps_done - 1)::bigint / (:points - 1)
        ORDER BY number LIMIT 1
    ) AS taken
    WHERE jobs.id = ANY(:job_ids) AND jobs.steps_done > 1
    ORDER BY jobs.id, point
""")


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


class EvaluationSeriesOut(BaseModel):
    """One entry for each evaluation during training kept: of many, those of lowest and highest loss in a stretch."""

    step: list[int]
    epoch: list[float] = Field(description="Epochs done, a fraction within one")
    at: list[int]
    loss: list[float] = Field(description="Loss of a held-out token, in nats")
    accuracy: list[float | None] = Field(description="Share of the learned tokens that the model ranks first")
    rouge_l: list[float | None] = Field(description="ROUGE-L F1 in per cent, on a sample of the held-out rows")


class SeriesRepository:
    """Reads curves with at most about `points` points each, so that no peak and no trough is lost.

    `start` and `end` restrict the points to that time; totals still count from the job's start.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def loss(self, job_id: str, *, points: int, start: datetime | None = None, end: datetime | None = None) -> LossOut:
        """Return the first and the last step, and those of lowest and highest loss in each stretch between.

        Selected by the database, since a long run has hundreds of thousands of steps. NaN counts as highest.
        """
        asked = {"job_id": job_id, "stretches": max(1, (points - 2) // 2), "start": start, "end": end}
        rows = self._session.execute(LOSS_QUERY, asked).all()
        return LossOut(
            step=[number for number, *_ in rows],
            at=[round(at) for _, at, *_ in rows],
            value=[round_to_six_digits(loss) for *_, loss, _ in rows],
            mean=[round_to_six_digits(mean) for *_, mean in rows],
        )

    def energy(
        self, job_id: str, *, points: int, start: datetime | None = None, end: datetime | None = None
    ) -> EnergyOut:
        """Return power (W), intensity (gCO2e/kWh) and totals of all attempts together.

        Energy is in kWh as metered; emissions are in gCO2e, PUE included, without those of the unpriced energy.
        Where intervals are left out, the one before lasts until the next one kept, or until the worker's end.
        """
        query = (
            select(
                _milliseconds(EnergyInterval.started_at),
                _milliseconds(EnergyInterval.finished_at),
                EnergyInterval.energy_kwh,
                EnergyInterval.intensity_gco2e_per_kwh,
                EnergyInterval.emissions_gco2e,
            )
            .where(EnergyInterval.job_id == job_id)
            .order_by(EnergyInterval.started_at, EnergyInterval.id)
        )
        rows = np.array(self._session.execute(query).all(), dtype=np.float64).reshape(-1, 5)
        return _energy_series(*rows.T, points=points, begin=_edge(start, -math.inf), until=_edge(end, math.inf))

    def epochs(self, job_id: str) -> RhoOut:
        """Return ρ of all epochs in order; the end and the ρ reached are None while an epoch runs."""
        times = _milliseconds(Epoch.started_at), _milliseconds(Epoch.finished_at)
        query = (
            select(Epoch.number, *times, Epoch.rho_asked, Epoch.rho_reached)
            .where(Epoch.job_id == job_id)
            .order_by(Epoch.number)
        )
        rows = self._session.execute(query).all()
        return RhoOut(
            epoch=[number for number, *_ in rows],
            start=[round(start) for _, start, *_ in rows],
            end=[None if end is None else round(end) for _, _, end, *_ in rows],
            asked=[asked for *_, asked, _ in rows],
            reached=[round_to_six_digits(reached) for *_, reached in rows],
        )

    def evaluations(self, job_id: str, *, points: int) -> EvaluationSeriesOut:
        """Return the evaluations during training in order of their steps."""
        columns = (Evaluation.step, Evaluation.epoch, _milliseconds(Evaluation.at), Evaluation.loss)
        query = select(*columns, Evaluation.accuracy, Evaluation.rouge_l).where(Evaluation.job_id == job_id)
        rows: Sequence[Any] = self._session.execute(query.order_by(Evaluation.step)).all()
        if len(rows) > points:
            losses = np.array([loss for _, _, _, loss, _, _ in rows], dtype=np.float64)
            kept = find_extremes(losses, max(1, points // 2)).tolist()
            rows = [rows[index] for index in sorted({0, *kept, len(rows) - 1})]
        return EvaluationSeriesOut(
            step=[step for step, *_ in rows],
            epoch=[epoch for _, epoch, *_ in rows],
            at=[round(at) for _, _, at, *_ in rows],
            loss=[float(f"{loss:.6g}") for _, _, _, loss, _, _ in rows],
            accuracy=[round_to_six_digits(accuracy) for *_, accuracy, _ in rows],
            rouge_l=[round_to_six_digits(rouge) for *_, rouge in rows],
        )


def loss_curves(
    session: Session, job_ids: Collection[str], *, points: int = SPARKLINE_POINTS
) -> Mapping[str, Sequence[float]]:
    """Return at most `points` (at least 2) losses of each job by step, evenly spread, the last included.

    Jobs with fewer than two losses are left out.
    """
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for job_id, number, loss in session.execute(LOSS_CURVES_QUERY, {"job_ids": list(job_ids), "points": points}):
        curves[job_id][number] = loss  # points of a short job may share a step
    return {job_id: list(losses.values()) for job_id, losses in curves.items() if len(losses) > 1}


def find_extremes(values: NDArray[np.float64], stretches: int) -> NDArray[np.intp]:
    """Return the ascending indices of the lowest and highest of `values` in each of `stretches` equal stretches.

    The first of equal values is taken. NaN is skipped; a stretch of NaN alone yields no index.
    """
    if not values.size:
        return np.empty(0, dtype=np.intp)
    starts = np.unique(np.arange(stretches) * values.size // stretches)
    kept: set[int] = set()
    for start, stretch in zip(starts.tolist(), np.split(values, starts[1:]), strict=True):
        if not np.isnan(stretch).all():
            kept |= {start + int(np.nanargmin(stretch)), start + int(np.nanargmax(stretch))}
    return np.array(sorted(kept), dtype=np.intp)


def _milliseconds(time: InstrumentedAttribute[Any]) -> ColumnElement[float]:
    return cast(func.extract("epoch", time) * 1000, Double)


def _energy_series(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    energy_kwh: NDArray[np.float64],
    intensity: NDArray[np.float64],
    emissions_gco2e: NDArray[np.float64],
    *,
    points: int,
    begin: float,
    until: float,
) -> EnergyOut:
    seconds = np.maximum(end - start, 1.0) / 1000
    power_w = energy_kwh * JOULES_PER_KWH / seconds
    latest = np.maximum.accumulate(end) if end.size else end
    begins = np.ones(start.size, dtype=bool)
    begins[1:] = start[1:] > latest[:-1] + GAP_MS
    shown = np.flatnonzero((end >= begin) & (start <= until))
    first, after = (int(shown[0]), int(shown[-1]) + 1) if shown.size else (0, 0)
    kept = np.arange(first, after)
    if kept.size > points:
        stretches = max(1, points // 4)
        window = slice(first, after)
        chosen = [find_extremes(power_w[window], stretches), find_extremes(intensity[window], stretches)]
        kept = np.unique(np.concatenate([*chosen, np.flatnonzero(begins[window])])) + first
    covered = np.append(kept, after)[1:] - 1  # the last interval before the next one kept
    unpriced_kwh = np.where(np.isnan(emissions_gco2e), energy_kwh, 0.0)
    return EnergyOut(
        start=[round(value) for value in start[kept].tolist()],
        end=[round(value) for value in latest[covered].tolist()],
        power_w=_rounded_or_zero(power_w[kept]),
        intensity_gco2e_per_kwh=[round_to_six_digits(value) for value in intensity[kept].tolist()],
        energy_kwh=_rounded_or_zero(np.cumsum(energy_kwh)[covered]),
        unpriced_kwh=_rounded_or_zero(np.cumsum(unpriced_kwh)[covered]),
        emissions_gco2e=_rounded_or_zero(np.cumsum(np.nan_to_num(emissions_gco2e))[covered]),
    )


def _edge(time: datetime | None, otherwise: float) -> float:
    return otherwise if time is None else time.timestamp() * 1000


def round_to_six_digits(value: float | None) -> float | None:
    """Return a value in six significant digits, more than a chart shows; None for one that is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _rounded_or_zero(values: NDArray[np.float64]) -> list[float]:
    return [round_to_six_digits(value) or 0.0 for value in values.tolist()]
