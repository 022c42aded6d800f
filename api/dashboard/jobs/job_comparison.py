"""Comparison of a succeeded job's predicted cost with what its epochs were metered at."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from planning.predicted_cost import PredictedCost, PredictedRange, predict_cost
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from store.tables import Job


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


@dataclass(frozen=True)
class Comparison:
    """Compared figures, and the prediction that they come from."""

    figures: Sequence[ComparedFigure]
    predicted_cost: PredictedCost


def compare_with_prediction(session: Session, job: Job, *, pue: float) -> Comparison | None:
    """Return the comparison; None for a job that has not succeeded or has no prediction."""
    if job.status is not JobStatus.SUCCEEDED:
        return None
    expected = predict_cost(session, job, pue=pue)
    if expected is None:
        return None
    costs = [cost for epoch, cost in JobRepository(session).epoch_costs(job.id).items() if epoch > 0]
    priced = [cost.emissions_gco2e for cost in costs if cost.emissions_gco2e is not None]
    emitted = sum(priced) if len(priced) == len(costs) else None
    return Comparison(
        figures=[
            ComparedFigure("Time", "h", expected.hours, expected.metered_hours),
            ComparedFigure("Energy", "kWh", expected.energy_kwh, sum(cost.energy_kwh for cost in costs)),
            ComparedFigure("Emissions", "gCO2e", expected.emissions_gco2e, emitted),
        ],
        predicted_cost=expected,
    )
