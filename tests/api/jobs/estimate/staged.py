"""Rows as preparation, epochs and the grid leave them, from which jobs are estimated."""

from collections.abc import Sequence
from typing import Any

from greencore.carbon import Reading
from greencore.clock import HOUR
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.status import JobStatus
from store.tables import EnergyInterval, Epoch, Job
from tests.api.conftest import MODEL, NOW

# 3.6e13 FLOPs an hour at the CPU's pace of 10 GFLOP/s, 100 W.
PACE = {"flops": 3.6e13, "hours": 1.0, "kwh": 0.1}
DEFER = {"mode": "defer", "max_delay_hours": 12, "min_saving": 0.05}
UNEVALUATED = {"eval_share": 0.0}  # no row is held out, so that the run consists of its steps


def store_prepared_job(database: Database, dataset_id: str, *, hours: float, **columns: Any) -> str:
    """Store a finished job whose preparation found epochs of this many hours at the measured pace."""
    with database.session() as session:
        job = Job(
            id=f"job_{columns.pop('name', 'prepared')}",
            status=JobStatus.SUCCEEDED,
            model=MODEL,
            dataset_id=dataset_id,
            method="greentrainer",
            policy={"kind": "constant", "rho": 1.0},
            priority=0,
            hyperparameters={"epochs": 1},
            labels={},
            created_at=NOW,
            finished_at=NOW - HOUR,
            device="cpu",
            epochs=1,
            estimate={
                "full_flops": hours * PACE["flops"] / PACE["hours"],
                "training_rows": 1,
                "logits": "learned",
                "tokens_per_epoch": 16,
                "steps": 1,
            },
        )
        for column, value in columns.items():
            setattr(job, column, value)
        session.add(job)
        return job.id


def store_epochs(database: Database, job_id: str, hours: Sequence[float], *, outside_hours: float = 0.0) -> None:
    """Store epochs of equal FLOPs that took this many hours each, at 100 W."""
    with database.session() as session:
        for number, length in enumerate([outside_hours, *hours]):
            if number:
                epoch = Epoch(
                    job_id=job_id, number=number, attempt=1, started_at=NOW - HOUR, finished_at=NOW - HOUR / number
                )
                epoch.rho_asked, epoch.reason, epoch.intensity_estimated = 1.0, "", False
                epoch.flops = epoch.full_flops = PACE["flops"]
                session.add(epoch)
            if length:
                session.add(make_interval(job_id, number, length))


def store_measured_job(
    database: Database, dataset_id: str, hours: Sequence[float], *, outside_hours: float = 0.0
) -> str:
    """Store a finished job of an epoch of 1 h, without held-out rows, and the hours that its epochs took."""
    hyperparameters = {"epochs": 1, **UNEVALUATED}
    job_id = store_prepared_job(database, dataset_id, hours=1.0, hyperparameters=hyperparameters)
    store_epochs(database, job_id, hours, outside_hours=outside_hours)
    return job_id


def make_interval(job_id: str, epoch: int, hours: float) -> EnergyInterval:
    """Return an interval of an epoch that took this many hours, at 100 W."""
    return EnergyInterval(
        job_id=job_id,
        epoch=epoch,
        attempt=1,
        started_at=NOW - hours * HOUR,
        finished_at=NOW,
        cpu_kwh=hours * PACE["kwh"],
        gpu_kwh=0.0,
        ram_kwh=0.0,
        method={},
        intensity_estimated=False,
    )


def store_intensities(database: Database, values: Sequence[float], zone: str = "FR") -> None:
    """Store a reading in force, and a forecast from the next hour on, one value an hour."""
    hours = [
        Reading(
            zone=zone,
            start=NOW + offset * HOUR,
            end=NOW + (offset + 1) * HOUR,
            gco2e_per_kwh=value,
            source="uk",
            estimated=offset > 0,
            fetched_at=NOW,
        )
        for offset, value in enumerate(values)
    ]
    with database.session() as session:
        GridRepository(session).put(hours[:1])
        GridRepository(session).put_forecast(zone, "average", hours[1:], at=NOW)
