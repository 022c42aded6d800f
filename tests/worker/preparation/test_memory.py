"""Peak memory of a job as it is prepared: refused with what would fit, recomputed under `auto`, and in the estimate."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from greencore.host_memory import read_host_memory
from greencore.hyperparameters import Hyperparameters
from runtime.settings import Settings
from store.tables import Job
from tests.greencore.training.conftest import small_model
from tests.worker.preparation.test_prepare import holding
from worker.failure_reports import explain_error
from worker.preparation.memory import Device, DeviceTooSmall
from worker.preparation.prepare import JobEstimate, estimate_job

ROWS = "\n".join(json.dumps({"prompt": " ".join(["w1"] * 60), "completion": f" w{n % 60} w8"}) for n in range(20))
Prepare = Callable[..., JobEstimate]


@pytest.fixture
def prepare(worker_settings: Settings, tmp_path: Path) -> Prepare:
    settings, rows = holding(worker_settings, small_model(tmp_path / "small", layers=3)), tmp_path / "rows.jsonl"
    rows.write_text(ROWS)

    def run(
        device_bytes: int | None = None, *, method: str = "full", rho: float = 0.6, **hyperparameters: Any
    ) -> JobEstimate:
        device = None if device_bytes is None else Device("cpu", device_bytes)
        given = {"batch_size": 16, "precision": "fp32", **hyperparameters}
        job = Job(model="small", method=method, policy={"kind": "constant", "rho": rho}, hyperparameters=given)
        return estimate_job(job, rows, settings, device=device)

    return run


def test_the_peak_falls_with_recomputation_micro_batches_and_methods(prepare: Prepare) -> None:
    full = prepare().peak_memory_bytes
    assert full is not None
    for changed in (
        {"gradient_checkpointing": True},
        {"micro_batch_size": 4},
        {"method": "lora"},
        {"precision": "bf16"},
    ):
        peak = prepare(**changed).peak_memory_bytes
        assert peak is not None
        assert peak < full, changed


@pytest.mark.parametrize("rho", [0.6, 1.0])
def test_tensors_that_are_never_trained_take_no_memory_of_a_step(prepare: Prepare, rho: float) -> None:
    every = prepare(method="greentrainer", rho=rho).peak_memory_bytes
    never = {"never_train": ["*mlp*", "*embed*"]}
    fewer = prepare(method="greentrainer", rho=rho, adaptive=never).peak_memory_bytes
    assert every is not None
    assert fewer is not None
    assert fewer < every


def test_auto_recomputes_where_a_job_fits_only_so(prepare: Prepare) -> None:
    kept, recomputed = prepare(), prepare(gradient_checkpointing=True)
    assert kept.peak_memory_bytes is not None
    assert recomputed.peak_memory_bytes is not None
    between = (kept.peak_memory_bytes + recomputed.peak_memory_bytes) // 2
    chosen = prepare(between)
    assert asdict(chosen) == {**asdict(recomputed), "device_memory_bytes": between}
    assert not prepare(kept.peak_memory_bytes).gradient_checkpointing


def test_a_job_that_fits_no_device_is_refused_with_what_would_fit(prepare: Prepare) -> None:
    recomputed = prepare(gradient_checkpointing=True).peak_memory_bytes
    assert recomputed is not None
    with pytest.raises(DeviceTooSmall) as refused:
        prepare(recomputed - 1)
    error = explain_error(refused.value)
    assert (error["title"], error["field"]) == (
        "The device has too little memory",
        "hyperparameters.micro_batch_size",
    )
    assert "GB on the largest device of a live worker (cpu): it would fit with micro_batch_size" in error["detail"]
    rows = int(error["detail"].partition("micro_batch_size ")[2].split()[0])
    assert prepare(recomputed - 1, micro_batch_size=rows).training_rows == 18
    with pytest.raises(DeviceTooSmall, match="a smaller max_length or model takes less"):
        prepare(1000)


def test_a_measured_micro_batch_is_refused_only_where_a_single_row_is_too_large(prepare: Prepare) -> None:
    one = prepare(micro_batch_size=1).peak_memory_bytes
    assert one is not None
    assert prepare(one, micro_batch_size="auto").peak_memory_bytes == one
    with pytest.raises(DeviceTooSmall):
        prepare(one - 1, micro_batch_size="auto", gradient_checkpointing=False)


def test_a_gpu_computes_in_bfloat16_only_where_its_name_is_known_to() -> None:
    since_ampere = (
        *("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A10G", "NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA L40S"),
        *("NVIDIA GeForce RTX 3070 Ti", "NVIDIA RTX A6000", "NVIDIA RTX 4000 SFF Ada Generation", "NVIDIA B200"),
    )
    others = ("Tesla V100-SXM2-16GB", "Tesla T4", "Quadro RTX 5000", "NVIDIA GeForce RTX 2080 Ti", "some GPU")
    wanted = Hyperparameters(precision="auto")
    assert {Device(name, 1).choose_precision(wanted) for name in since_ampere} == {"bf16"}
    assert {Device(name, 1).choose_precision(wanted) for name in others} == {"fp32"}
    assert Device("Tesla T4", 1).choose_precision(Hyperparameters(precision="bf16")) == "bf16"


def test_the_hosts_memory_is_at_most_its_containers(tmp_path: Path) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "unlimited"
    limit.write_text("1000000\n")
    none.write_text("max\n")
    assert read_host_memory([limit]) == 1_000_000
    assert read_host_memory([none, tmp_path / "absent"]) == read_host_memory([])
