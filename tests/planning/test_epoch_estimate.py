"""Epoch estimates: the epochs that they are measured from, their spread, and the assumptions."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from greencore.clock import HOUR
from planning.epoch_estimate import ASSUMED_SPREAD, EpochEstimate, estimate_epoch, estimate_epoch_from_flops
from planning.evaluation_work import RECENT_JOBS, EvaluationWork, measure_evaluations
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import EnergyInterval, Epoch, Evaluation, Job
from tests.scheduler.stage import FLOPS_PER_HOUR, START, add_job, read_job

FLOPS = 1e15


def ran(
    database: Database,
    hours: Sequence[float],
    *,
    model: str = "m",
    device: str = "cpu",
    outside: float = 0.0,
    gpus: int = 1,
) -> str:
    """Add a finished job whose epochs of equal FLOPs took the given hours each, at 100 W."""
    job_id = add_job(database, zone="FR", hours=FLOPS / FLOPS_PER_HOUR * len(hours), epochs=len(hours))
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.status, job.model, job.device, job.finished_at = JobStatus.SUCCEEDED, model, device, START
        job.gpus = gpus
        for number, length in enumerate([outside, *hours]):
            if number:
                session.add(
                    Epoch(
                        job_id=job_id,
                        number=number,
                        attempt=1,
                        started_at=START,
                        finished_at=START + number * timedelta(minutes=1),
                        rho_asked=1.0,
                        reason="",
                        intensity_estimated=False,
                        flops=FLOPS,
                    )
                )
            if length:
                session.add(
                    EnergyInterval(
                        job_id=job_id,
                        epoch=number,
                        attempt=1,
                        started_at=START,
                        finished_at=START + length * HOUR,
                        cpu_kwh=0.1 * length,
                        gpu_kwh=0.0,
                        ram_kwh=0.0,
                        method={},
                        intensity_estimated=False,
                    )
                )
    return job_id


def test_own_epochs_are_preferred_then_the_model_then_the_device(database: Database, settings: Settings) -> None:
    other = ran(database, [8.0], model="other")
    with database.session() as session:
        by_device = estimate_epoch_from_flops(session, settings, model="m", epoch_flops=FLOPS, device="cpu")
        elsewhere = estimate_epoch_from_flops(session, settings, model="m", epoch_flops=FLOPS, device="NVIDIA H100")
    ran(database, [4.0])
    with database.session() as session:
        by_model = estimate_epoch_from_flops(session, settings, model="m", epoch_flops=FLOPS, device="cpu")
        own = estimate_epoch(session, read_job(database, other), settings, device="cpu")
    assert own is not None
    assert [found.epoch_hours for found in (by_device, by_model, own)] == pytest.approx([8.0, 4.0, 8.0])
    assert [found.epoch_kwh for found in (by_device, by_model, own)] == pytest.approx([0.8, 0.4, 0.8])
    assert elsewhere.assumed
    assert own.basis == "its own epochs"
    # The less specific the sample, the wider the spread.
    assert own.spread < by_model.spread < by_device.spread < elsewhere.spread == ASSUMED_SPREAD


def test_the_spread_follows_from_the_scatter_of_epochs(database: Database, settings: Settings) -> None:
    def spread(hours: Sequence[float], model: str) -> float:
        ran(database, hours, model=model)
        with database.session() as session:
            return estimate_epoch_from_flops(session, settings, model=model, epoch_flops=FLOPS, device="cpu").spread

    steady, few, wild = spread([1.0] * 6, "steady"), spread([1.0, 1.3], "few"), spread([1.0, 3.0] * 3, "wild")

    assert steady == 1.1
    # Student's t for one degree of freedom is 6.31, and the standard deviation of two epochs is ln 1.3 / √2.
    assert few == pytest.approx(1.3 ** (6.31 / 2**0.5 * 1.5**0.5), rel=0.01)
    assert wild > 3


def test_overhead_outside_of_epochs_is_the_mean_of_recent_jobs(database: Database, settings: Settings) -> None:
    ran(database, [1.0], outside=0.5)
    ran(database, [1.0], outside=0.3)
    with database.session() as session:
        found = estimate_epoch_from_flops(session, settings, model="m", epoch_flops=FLOPS, device="cpu")
    assert found.outside_hours == pytest.approx(0.4)
    assert found.outside_kwh == pytest.approx(0.04)


def test_evaluations_are_measured_in_the_newest_finished_jobs(database: Database) -> None:
    def evaluated(*seconds: float, age: int) -> None:
        job_id = ran(database, [1.0])
        with database.session() as session:
            session.get_one(Job, job_id).finished_at = START - age * HOUR
            for step, length in enumerate(seconds):
                row = Evaluation(job_id=job_id, step=step, epoch=1.0, at=START, loss=1.0)
                row.seconds, row.energy_kwh, row.rows = length, 0.1, 1
                session.add(row)

    evaluated(7200.0, age=9)
    for age in range(RECENT_JOBS):
        evaluated(3600.0, 1800.0, age=age)
        ran(database, [1.0])  # without evaluations
    with database.session() as session:
        assert measure_evaluations(session, "m", "cpu", gpus=1) == pytest.approx((0.75, 0.1))
        assert measure_evaluations(session, "m", "cpu", gpus=4) == pytest.approx((0.75, 0.4))  # each evaluates all
        assert measure_evaluations(session, "other", "cpu", gpus=1) is None


def test_settings_override_the_assumptions(database: Database, settings: Settings) -> None:
    overridden = settings.model_copy(update={"assumed_tflops": 10.0, "assumed_power_w": 200.0})
    with database.session() as session:
        found = estimate_epoch_from_flops(session, overridden, model="m", epoch_flops=3.6e16, device="NVIDIA H100")
    assert [found.epoch_hours, found.epoch_kwh] == pytest.approx([1.0, 0.2])
    assert found.basis == "assumptions: 10 TFLOP/s, 200 W"


def test_epochs_on_another_number_of_gpus_are_scaled_with_a_wider_spread(
    database: Database, settings: Settings
) -> None:
    def estimate(gpus: int) -> EpochEstimate:
        with database.session() as session:
            return estimate_epoch_from_flops(session, settings, model="m", epoch_flops=FLOPS, device="H100", gpus=gpus)

    ran(database, [8.0], device="H100", outside=1.0)
    alone, scaled = estimate(1), estimate(4)
    assert (alone.epoch_hours, scaled.epoch_hours) == pytest.approx((8.0, 2.0))
    assert (alone.epoch_kwh, scaled.epoch_kwh) == pytest.approx((0.8, 0.8))  # four times the power
    assert (alone.outside_hours, scaled.outside_hours) == pytest.approx((1.0, 1.0))
    assert (alone.outside_kwh, scaled.outside_kwh) == pytest.approx((0.1, 0.4))
    assert scaled.spread > alone.spread
    assert scaled.basis == f"{alone.basis}, scaled to 4 GPUs from runs on another number"
    ran(database, [3.0], device="H100", gpus=4)
    assert estimate(1).epoch_hours == alone.epoch_hours  # epochs on as many count alone
    assert estimate(4).epoch_hours == pytest.approx(3.0)
    assert estimate(4).basis == alone.basis
    assert estimate(2).epoch_hours == pytest.approx((8.0 / 2 + 3.0 * 2) / 2)


def test_another_models_epochs_on_as_many_gpus_come_after_its_own_on_another_number(
    database: Database, settings: Settings
) -> None:
    ran(database, [8.0], device="H100", model="other", gpus=2)
    ran(database, [6.0], device="H100")
    with database.session() as session:
        found = estimate_epoch_from_flops(session, settings, model="m", epoch_flops=FLOPS, device="H100", gpus=2)
    assert found.epoch_hours == pytest.approx(3.0)


@pytest.mark.parametrize(("device", "epoch_hours"), [("H100", 1.0), ("cpu", 8000.0)])
def test_what_is_assumed_of_several_gpus_is_that_of_as_many(
    database: Database, settings: Settings, device: str, epoch_hours: float
) -> None:
    work = EvaluationWork(number=2, rows=10, flops=3.6e17)
    with database.session() as session:
        found, alone = (
            estimate_epoch_from_flops(
                session, settings, model="m", epoch_flops=1.44e18, device=device, gpus=gpus, evaluations=work
            )
            for gpus in (4, 1)
        )
    assert found.epoch_hours == pytest.approx(epoch_hours)  # processes without GPUs share their host's processor
    assert found.epoch_kwh == pytest.approx(alone.epoch_kwh)
    assert found.evaluation_kwh == pytest.approx(4 * alone.evaluation_kwh)
    assert found.evaluation_hours == pytest.approx(2 * found.epoch_hours)
