"""Rows as a scheduler and its workers write them: zones with history and forecast, and jobs of every status."""

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert
from sqlalchemy import text as sql

from greencore.backprop.cost.profile import TensorCost
from greencore.carbon import Reading
from greencore.policy import parse_policy
from runtime.ids import new_id
from runtime.settings import Settings
from runtime.site import Site
from scheduler.settlement import store_counterfactuals
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.status import JobStatus
from store.repositories.policies import PolicyRepository
from store.repositories.workers import WorkerRepository
from store.tables import Artifact, Dataset, EnergyInterval, Epoch, Evaluation, Event, Job, Step, Tensor

# Each zone's mean and swing over a day, in gCO2e/kWh.
ZONES = {"DE": (380.0, 190.0), "FR": (60.0, 25.0), "GB": (210.0, 110.0)}
KINDS = {"self_attn.q_proj": 6, "self_attn.k_proj": 2, "self_attn.v_proj": 2, "self_attn.o_proj": 6} | {
    "mlp.gate_proj": 16,
    "mlp.up_proj": 16,
    "mlp.down_proj": 16,
    "input_layernorm": 1,
    "post_attention_layernorm": 1,
}
LAYERS = 12
POWER_W = 300.0
EPOCH = timedelta(minutes=40)


def hour_before(at: datetime) -> datetime:
    """Return the full hour at or before a time."""
    return at.replace(minute=0, second=0, microsecond=0)


def intensity(zone: str, at: datetime) -> float:
    """Intensity of a zone in gCO2e/kWh: a day with a clean noon and a dirty evening."""
    mean, swing = ZONES[zone]
    hour = at.hour + at.minute / 60
    return round(max(5.0, mean - swing * math.cos((hour - 13) / 24 * 2 * math.pi) + swing / 4 * math.sin(at.day)), 1)


def stage_grid(database: Database, *, now: datetime, days: int = 10) -> None:
    """Store `days` days of hourly readings for every zone of `ZONES`, and a forecast of two days."""
    begin = hour_before(now)

    def hours(zone: str, first: int, last: int) -> list[Reading]:
        starts = [begin + timedelta(hours=offset) for offset in range(first, last)]
        return [
            Reading(
                zone=zone,
                start=start,
                end=start + timedelta(hours=1),
                gco2e_per_kwh=intensity(zone, start),
                source="uk" if zone == "GB" else "energy-charts",
                estimated=start > begin,
                fetched_at=now,
            )
            for start in starts
        ]

    with database.session() as session:
        grid = GridRepository(session)
        for zone in ZONES:
            grid.put(hours(zone, -24 * days, 1))
            grid.put_forecast(zone, "average", hours(zone, 1, 49), at=now)


def stage_workers(database: Database, *, now: datetime, busy_with: str | None = None) -> None:
    """Store a training worker whose site has a PUE, an idle one, a prepare worker and a scheduler."""
    with database.session() as session:
        workers = WorkerRepository(session)
        workers.record_heartbeat("worker-a", at=now, site=Site(zone="FR", pue=1.2), device="NVIDIA H100 80GB HBM3")
        workers.record_heartbeat("worker-b", at=now, site=Site(zone="DE"), device="cpu")
        workers.record_heartbeat("prepare-a", at=now, role="prepare")
        workers.record_heartbeat("scheduler-a", at=now, role="scheduler")
        if busy_with is not None:
            session.get_one(Job, busy_with).worker_id = "worker-a"


def stage_policies(database: Database, *, now: datetime) -> None:
    """Store two policies, one of them with two versions."""
    linear = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}
    deferred = {"kind": "constant", "rho": 0.7, "gate": {"mode": "defer", "max_delay_hours": 12}}
    with database.session() as session:
        policies = PolicyRepository(session)
        policies.add_version("follow-the-grid", parse_policy(linear).to_json(), at=now - timedelta(days=3))
        policies.add_version("night-shift", parse_policy({"kind": "constant", "rho": 0.7}).to_json(), at=now)
        policies.add_version("night-shift", parse_policy(deferred).to_json(), at=now)


def stage_dataset(database: Database, settings: Settings, *, now: datetime, owner: str = "ops") -> str:
    """Store a dataset of three rows with its file; return its id."""
    dataset_id, blob = new_id("dataset"), "ab" * 16
    path = settings.dataset_file(blob)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"prompt": "1 + 1 =", "completion": " 2"}\n' * 3)
    with database.session() as session:
        session.add(
            Dataset(
                id=dataset_id,
                owner=owner,
                name="sums.jsonl",
                format="jsonl",
                rows=3,
                bytes=path.stat().st_size,
                sha256="ab" * 32,
                blob=blob,
                contents={
                    "forms": {"prompt": 3},
                    "characters": {"total": 27, "mean": 9.0, "median": 9, "max": 9},
                    "ignored_fields": [],
                },
                created_at=now,
            )
        )
    return dataset_id


def stage_job(
    database: Database,
    settings: Settings,
    dataset_id: str,
    status: JobStatus,
    *,
    now: datetime,
    zone: str = "GB",
    epochs: int = 8,
    epochs_done: int = 0,
    steps_an_epoch: int = 100,
    owner: str = "ops",
    **columns: Any,
) -> str:
    """Store a job after `epochs_done` epochs, half through the next where it runs; return its id."""
    job_id = new_id("job")
    running = status in (JobStatus.RUNNING, JobStatus.PAUSING)
    begun = epochs_done > 0 or running
    start = now - EPOCH * (epochs_done + 0.5 * running)
    finished = now if status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED) else None
    with database.session() as session:
        values = {
            "id": job_id,
            "status": status,
            "owner": owner,
            "model": "SmolLM2-135M-Instruct",
            "dataset_id": dataset_id,
            "method": "greentrainer",
            "policy_name": "follow-the-grid",
            "policy": {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4},
            "zone_asked": zone,
            "zone": zone,
            "priority": 0,
            "hyperparameters": {"epochs": epochs, "learning_rate": 1e-4},
            "labels": {"team": "speech"},
            "created_at": start - timedelta(minutes=2),
            "ready_at": start - timedelta(minutes=1),
            "queued_at": start - timedelta(minutes=1),
            "started_at": start if begun else None,
            "finished_at": finished,
            "attempts": int(begun),
            "device": "NVIDIA H100 80GB HBM3" if begun else None,
            "epochs": epochs,
            "epochs_done": epochs_done,
            "steps": epochs * steps_an_epoch,
            "signal": "average",
        }
        session.add(Job(**(values | columns)))
        session.flush()
        session.add_all(
            Event(job_id=job_id, at=at, type=kind, data=data)
            for at, kind, data in (
                (start - timedelta(minutes=2), "job.submitted", {}),
                (start - timedelta(minutes=1), "job.queued", {"reason": "prepared"}),
                *([(start, "job.running", {"device": "NVIDIA H100 80GB HBM3"})] if begun else []),
                *([(now, f"job.{status.value}", {"reason": None})] if finished else []),
            )
        )
        if begun:
            _stage_tensors(session, job_id)
            for number in range(1, epochs_done + 1):
                _stage_epoch(session, job_id, zone, number, start + EPOCH * (number - 1), EPOCH, steps_an_epoch)
            if running:
                at = start + EPOCH * epochs_done
                _stage_epoch(session, job_id, zone, epochs_done + 1, at, EPOCH / 2, steps_an_epoch // 2, over=False)
            _stage_totals(session, job_id)
        if status is JobStatus.SUCCEEDED:
            file = settings.artifact_file(job_id, "model.safetensors")
            file.parent.mkdir(parents=True)
            file.write_bytes(b"weights")
            session.add(Artifact(job_id=job_id, name="model.safetensors", bytes=7, sha256="ab" * 32, created_at=now))
    if finished and begun:
        store_counterfactuals(database, settings, at=now)
    return job_id


def tensors() -> list[TensorCost]:
    """Tensors of a small Llama, from the model's output to its input."""
    found = [TensorCost("lm_head.weight", t_dw=90_000_000, t_dy=90_000_000, params=4_000_000)]
    for layer in reversed(range(LAYERS)):
        for kind, size in KINDS.items():
            flops = size * 1_000_000
            found.append(
                TensorCost(f"model.layers.{layer}.{kind}.weight", t_dw=flops, t_dy=flops, params=size * 40_000)
            )
    return [*found, TensorCost("model.embed_tokens.weight", t_dw=1_000_000, t_dy=0, params=4_000_000)]


def _stage_tensors(session: Any, job_id: str) -> None:
    rows = [
        {
            "job_id": job_id,
            "position": position,
            "name": tensor.name,
            "parameters": tensor.params,
            "t_dw_flops": tensor.t_dw,
            "t_dy_flops": tensor.t_dy,
        }
        for position, tensor in enumerate(tensors())
    ]
    session.execute(insert(Tensor), rows)


def _stage_epoch(
    session: Any,
    job_id: str,
    zone: str,
    number: int,
    start: datetime,
    length: timedelta,
    steps: int,
    *,
    over: bool = True,
) -> None:
    drawn = random.Random(number)
    gco2e = intensity(zone, start)
    rho = min(1.0, max(0.4, 1.0 - 0.6 * (gco2e - 100) / 300))
    importance = [drawn.random() ** 3 for _ in tensors()]
    reached = sorted(range(len(importance)), key=lambda index: -importance[index])[: round(rho * len(importance))]
    measured: dict[str, Any] = {}
    if over:
        measured = {
            "finished_at": start + length,
            "rho_reached": rho - 0.01,
            "flops": (rho - 0.01) * 1e15,
            "full_flops": 1e15,
            "tensors_selected": len(reached),
            "tensors_total": len(importance),
            "selection": {tensors()[index].name: importance[index] for index in reached},
            "importance": [value if index % 9 else None for index, value in enumerate(importance)],
            "train_loss": _loss(number * steps),
            "eval_loss": _loss(number * steps) + 0.1,
        }
    session.add(
        Epoch(
            job_id=job_id,
            number=number,
            attempt=1,
            started_at=start,
            rho_asked=rho,
            reason=f"{gco2e:g} gCO2e/kWh (energy-charts, 12 min old) is between clean and dirty: ρ {rho:.3g}",
            intensity_gco2e_per_kwh=gco2e,
            intensity_source="energy-charts",
            intensity_step="fresh",
            intensity_age_seconds=720.0,
            intensity_estimated=False,
            **measured,
        )
    )
    if over:
        step, loss = number * steps, measured["eval_loss"]
        evaluated = {"accuracy": 1 / (1 + loss), "rows": 40, "seconds": 30.0, "energy_kwh": 0.002}
        session.add(Evaluation(job_id=job_id, step=step, epoch=number, at=start + length, loss=loss, **evaluated))
    first = (number - 1) * (steps if over else 2 * steps)
    session.execute(
        insert(Step),
        [
            {
                "job_id": job_id,
                "number": first + step,
                "at": start + length * (step / steps),
                "loss": _loss(first + step) + drawn.gauss(0, 0.12),
            }
            for step in range(1, steps + 1)
        ],
    )
    session.execute(insert(EnergyInterval), _intervals(job_id, zone, number, start, length))


def _intervals(job_id: str, zone: str, epoch: int, start: datetime, length: timedelta) -> Sequence[dict[str, Any]]:
    minutes = round(length / timedelta(minutes=1))
    rows = []
    for minute in range(minutes):
        at = start + timedelta(minutes=minute)
        gpu_kwh = POWER_W * (0.9 + 0.1 * math.sin(minute)) / 60_000
        rows.append(
            {
                "job_id": job_id,
                "epoch": epoch,
                "attempt": 1,
                "started_at": at,
                "finished_at": at + timedelta(minutes=1),
                "cpu_kwh": 0.0005,
                "gpu_kwh": gpu_kwh,
                "ram_kwh": 0.0001,
                "method": {"cpu": "RAPL", "gpu": "NVML", "ram": "capacity estimate"},
                "intensity_gco2e_per_kwh": intensity(zone, hour_before(at)),
                "intensity_source": "energy-charts",
                "intensity_estimated": False,
                "emissions_gco2e": (gpu_kwh + 0.0006) * intensity(zone, hour_before(at)),
            }
        )
    return rows


def _stage_totals(session: Any, job_id: str) -> None:
    session.execute(
        sql(
            "UPDATE jobs SET revision = revision + 1, "
            "energy_kwh = (SELECT sum(cpu_kwh + gpu_kwh + ram_kwh) FROM energy_intervals WHERE job_id = :job_id), "
            "emissions_gco2e = (SELECT sum(emissions_gco2e) FROM energy_intervals WHERE job_id = :job_id), "
            "steps_done = (SELECT count(*) FROM steps WHERE job_id = :job_id), "
            "loss = (SELECT loss FROM steps WHERE job_id = :job_id ORDER BY number DESC LIMIT 1), "
            "rho = (SELECT rho_asked FROM epochs WHERE job_id = :job_id ORDER BY number DESC LIMIT 1) "
            "WHERE id = :job_id"
        ),
        {"job_id": job_id},
    )


def _loss(step: int) -> float:
    return 1.4 + 2.2 * math.exp(-step / 180)


def stage_all(database: Database, settings: Settings, *, now: datetime | None = None) -> dict[str, str]:
    """Stage the grid, workers, policies and a job of every status; return the jobs' ids by status."""
    now = now or datetime.now(UTC)
    stage_grid(database, now=now)
    stage_policies(database, now=now)
    dataset = stage_dataset(database, settings, now=now)
    gate = {
        "opens": False,
        "until": (now + timedelta(hours=3)).isoformat(),
        "reason": "waits for the cleanest window, from 3 h on",
        "saving": 0.31,
        "forced": False,
        "deadline": (now + timedelta(hours=12)).isoformat(),
        "at": now.isoformat(),
    }
    failure = {
        "title": "No memory left",
        "detail": "the GPU has 80 GB: try a smaller batch_size",
        "field": "batch_size",
    }
    finishes = {name: (now + timedelta(minutes=minutes)).isoformat() for name, minutes in _ETA.items()}
    eta = {**finishes, "basis": "its own epochs", "at": now.isoformat()}
    staged: dict[JobStatus, dict[str, Any]] = {
        JobStatus.QUEUED: {"reason": "waits for a worker in GB"},
        JobStatus.DEFERRED: {"gate": gate, "reason": gate["reason"], "zone": "DE"},
        JobStatus.PAUSED: {"epochs_done": 2, "reason": "paused by its owner"},
        JobStatus.FAILED: {"epochs_done": 1, "error": failure, "reason": failure["detail"]},
        JobStatus.CANCELLED: {"epochs_done": 1},
        JobStatus.SUCCEEDED: {"epochs_done": 8},
        JobStatus.RUNNING: {"epochs_done": 4, "eta": eta},
    }
    ids = {
        status.value: stage_job(database, settings, dataset, status, now=now, **columns)
        for status, columns in staged.items()
    }
    stage_workers(database, now=now, busy_with=ids["running"])
    return ids


_ETA = {"finishes_at": 140, "earliest": 120, "latest": 170}


def stage_many(database: Database, count: int) -> None:
    """Store `count` copies of a succeeded job, older than all others."""
    copied = (
        "INSERT INTO jobs SELECT (jsonb_populate_record(template.job, jsonb_build_object("
        "'id', 'job_0' || lpad(n::text, 31, '0')))).* "
        "FROM (SELECT jobs AS job FROM jobs WHERE status = 'succeeded' LIMIT 1) template, "
        "generate_series(1, CAST(:count AS integer)) n"
    )
    with database.session() as session:
        session.execute(sql(copied), {"count": count})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sql("VACUUM ANALYZE jobs"))
