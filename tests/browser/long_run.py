"""Rows of a very long run: 100,000 steps, 10,000 intervals with a pause, and 272 tensors."""

import json
import math
import random
from datetime import datetime, timedelta

from sqlalchemy import insert, text

from store.database import Database
from store.tables import Epoch, Tensor

STEPS = 100_000
INTERVALS = 10_000  # of a minute, with the pause in the middle
PAUSE = timedelta(hours=12)
LAYERS = 30
KINDS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)
# Those of SmolLM2-135M, from output to input.
NAMES = [
    "model.norm.weight",
    *(f"model.layers.{layer}.{kind}.weight" for layer in reversed(range(LAYERS)) for kind in reversed(KINDS)),
    "model.embed_tokens.weight",
]

STEP_ROWS = text(
    "INSERT INTO steps SELECT :job_id, n, :start + n * interval '6 seconds' "
    "+ CASE WHEN n > 50000 THEN interval '12 hours' ELSE interval '0' END, "
    "1.4 + 2.2 * exp(-n / 18000.0) + 0.3 * random() FROM generate_series(1, 100000) n"
)
INTERVAL_ROWS = text(
    "INSERT INTO energy_intervals (job_id, epoch, attempt, started_at, finished_at, cpu_kwh, gpu_kwh, ram_kwh, method, "
    "intensity_gco2e_per_kwh, intensity_source, intensity_estimated, pue, emissions_gco2e, settled, lost, zone, "
    "evaluation) "
    "SELECT :job_id, 1 + n / 625, 1, at, at + interval '1 minute', 0.0005, 0.005 + 0.0005 * sin(n), 0.0001, '{}', "
    "intensity, 'energy-charts', false, 1, 0.006 * intensity, true, false, 'DE', false FROM ("
    "SELECT n, 200 + 180 * sin(n / 230.0) AS intensity, :start + n * interval '1 minute' "
    "+ CASE WHEN n >= 5000 THEN interval '12 hours' ELSE interval '0' END AS at "
    "FROM generate_series(0, 9999) n) AS minutes"
)


def stage_long_run(database: Database, job_id: str, start: datetime, epochs: int = 16) -> None:
    """Insert the rows for a job without any."""
    drawn = random.Random(7)
    with database.session() as session:
        session.execute(STEP_ROWS, {"job_id": job_id, "start": start})
        session.execute(INTERVAL_ROWS, {"job_id": job_id, "start": start})
        session.execute(
            insert(Tensor),
            [
                {
                    "job_id": job_id,
                    "position": position,
                    "name": name,
                    "parameters": 884_736,
                    "t_dw_flops": 1_811_939_328,
                    "t_dy_flops": 1_811_939_328,
                }
                for position, name in enumerate(NAMES)
            ],
        )
        begun = start
        for number in range(1, epochs + 1):
            importance = [abs(drawn.gauss(0, 1e-3)) for _ in NAMES]
            chosen = sorted(range(len(NAMES)), key=lambda index: -importance[index])[: len(NAMES) // 2]
            ended = begun + timedelta(minutes=INTERVALS / epochs)
            session.add(
                Epoch(
                    job_id=job_id,
                    number=number,
                    attempt=1,
                    started_at=begun,
                    finished_at=ended,
                    rho_asked=0.7 + 0.3 * math.sin(number),
                    rho_reached=0.69 + 0.3 * math.sin(number),
                    reason="",
                    intensity_estimated=False,
                    selection={NAMES[index]: importance[index] for index in chosen},
                    importance=importance,
                    train_loss=1.5,
                    eval_loss=1.6,
                )
            )
            begun = ended + (PAUSE if number == epochs // 2 else timedelta())
        session.execute(
            text(
                "UPDATE jobs SET revision = revision + 1, epochs = :epochs, epochs_done = :epochs, steps = :steps, "
                "steps_done = :steps, started_at = :start, finished_at = :end, "
                "counterfactuals = CAST(:others AS jsonb) WHERE id = :job_id"
            ),
            {
                "job_id": job_id,
                "epochs": epochs,
                "steps": STEPS,
                "start": start,
                "end": begun,
                "others": json.dumps(_counterfactuals(start, begun)),
            },
        )


def _counterfactuals(start: datetime, end: datetime) -> dict[str, object]:
    totals = {"full_now": 15_000.0, "constant_now": 12_500.0, "oracle": 9_000.0}
    others = {
        name: {
            "name": name,
            "emissions_gco2e": total,
            "energy_kwh": 60.0,
            "hours": 166.0,
            "start": start.isoformat(),
            "end": (start + timedelta(hours=167) if name != "oracle" else end).isoformat(),
            "assumption": "made up",
            "covered_share": 1.0,
            "estimated": True,
        }
        for name, total in totals.items()
    }
    return {**others, "savings": {"less_work": 0.17, "moved_in_time": 0.1}}
