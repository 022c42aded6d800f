"""Peak memory of a job as it is prepared: refused with what would fit, recomputed under `auto`, and in the estimate."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greencore.backprop import profile
from greencore.device import Device
from greencore.host_memory import read_host_memory
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.methods import step_costs
from greencore.training.methods.step_memory import predict_step_memory
from planning.device_fit import MemoryNeed
from planning.live_devices import list_live_devices
from planning.peak_memory import JobSettings, TracedStep
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import Job
from tests.greencore.training.conftest import small_model
from tests.scheduler.stage import add_job, add_worker, read_job
from tests.worker.preparation.test_prepare import holding
from worker.failure_reports import explain_error
from worker.preparation.memory import DeviceTooSmall
from worker.preparation.prepare import JobEstimate, estimate_job, prepare_job

ROWS = "\n".join(json.dumps({"prompt": " ".join(["w1"] * 60), "completion": f" w{n % 60} w8"}) for n in range(20))
Prepare = Callable[..., JobEstimate]


@pytest.fixture
def prepare(worker_settings: Settings, tmp_path: Path) -> Prepare:
    settings, rows = holding(worker_settings, small_model(tmp_path / "small", layers=3)), tmp_path / "rows.jsonl"
    rows.write_text(ROWS)

    def run(
        *devices: Device | int | None,
        method: str = "full",
        rho: float = 0.6,
        gpus: int | None = 1,
        **hyperparameters: Any,
    ) -> JobEstimate:
        live = [Device("cpu", device) if isinstance(device, int) else device for device in devices]
        given = {"batch_size": 16, "precision": "fp32", **hyperparameters}
        policy = {"kind": "constant", "rho": rho}
        job = Job(model="small", method=method, policy=policy, hyperparameters=given, gpus_asked=gpus)
        return estimate_job(job, rows, settings, devices=live)

    return run


def test_steps_of_the_same_shapes_are_traced_once_for_memory_and_flops(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[bool] = []

    def trace(model: Any, *given: Any, **settings: Any) -> Any:
        traced.append(model.model.gradient_checkpointing)
        return profile(model, *given, **settings)

    monkeypatch.setattr(step_costs, "profile", trace)
    for rho in (0.6, 1.0):  # at 1 everything is trained, whose memory needs no costs
        traced.clear()
        assert prepare(Device("cpu", 10**12), method="greentrainer", rho=rho).step_memory is not None
        at_each_length = traced.count(False)
        assert at_each_length in (2, 3)
        assert traced.count(True) == (at_each_length if rho < 1 else 0)


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


@pytest.mark.parametrize(("precision", "gpus"), [("fp32", 1), ("bf16", 1), ("fp32", 4), ("bf16", 4)])
def test_the_memory_of_other_batches_and_optimisers_follows_from_a_traced_step(
    prepare: Prepare, precision: str, gpus: int
) -> None:
    def trace(**changed: Any) -> TracedStep:
        traced = prepare(precision=precision, gpus=gpus, **changed).step_memory
        assert traced is not None
        assert traced.peak == prepare(precision=precision, gpus=gpus, **changed).peak_memory_bytes
        return traced

    def of_process(settings: dict[str, Any]) -> Hyperparameters:
        given = Hyperparameters(**{"batch_size": 16, **settings})
        return JobSettings("small", "full", 1.0, given, gpus).of_process

    base = trace()
    changes: list[dict[str, Any]] = [{"micro_batch_size": 4}, {"batch_size": 4}, {"optimizer": "sgd"}]
    for changed in changes:
        traced = trace(**changed)
        given, wanted = (of_process(settings) for settings in ({}, changed))
        predicted = base.predict(given, wanted, rows=traced.rows, tokens=traced.tokens, learned=traced.learned)
        assert predicted == pytest.approx(traced.peak, rel=0.15), changed
        same = traced.predict(wanted, wanted, rows=traced.rows, tokens=traced.tokens, learned=traced.learned)
        assert same == traced.peak, changed
        back = traced.predict(wanted, given, rows=base.rows, tokens=base.tokens, learned=base.learned)
        assert back == pytest.approx(base.peak, rel=0.15), changed


def test_the_gradients_of_a_measured_micro_batch_are_those_of_its_traced_step(prepare: Prepare) -> None:
    wanted = Hyperparameters(batch_size=16, micro_batch_size=1, gradient_checkpointing=True)
    one = prepare(precision="bf16", micro_batch_size=1, gradient_checkpointing=True).step_memory
    assert one is not None
    auto = prepare(Device("GPU", one.peak, computes_bf16=True), precision="bf16", micro_batch_size="auto").step_memory
    assert auto == one  # of one row, with gradients in float32 that add up
    given = Hyperparameters(batch_size=16, micro_batch_size="auto")
    assert auto.predict(given, wanted, rows=one.rows, tokens=one.tokens, learned=one.learned) == one.peak


def test_auto_recomputes_where_a_job_fits_only_so(prepare: Prepare) -> None:
    kept, recomputed = prepare(), prepare(gradient_checkpointing=True)
    assert kept.peak_memory_bytes is not None
    assert recomputed.peak_memory_bytes is not None
    between = (kept.peak_memory_bytes + recomputed.peak_memory_bytes) // 2
    chosen = prepare(between)
    need = MemoryNeed(kept.peak_memory_bytes, recomputed.peak_memory_bytes)
    assert chosen == replace(recomputed, device_memory_bytes=between, memory_needs={"fp32": need})
    assert not prepare(kept.peak_memory_bytes).gradient_checkpointing


def test_a_job_is_prepared_for_the_largest_device_and_needs_are_told_for_all(prepare: Prepare) -> None:
    kept, recomputed = prepare(), prepare(gradient_checkpointing=True)
    half, half_recomputed = (
        prepare(precision="bf16", gradient_checkpointing=on).peak_memory_bytes for on in (False, True)
    )
    assert kept.peak_memory_bytes is not None
    assert recomputed.peak_memory_bytes is not None
    assert half is not None
    large, small = Device("cpu", kept.peak_memory_bytes), Device("cpu", recomputed.peak_memory_bytes)
    found = prepare(small, Device("GPU", half, computes_bf16=True), large, precision="auto")
    assert (found.gradient_checkpointing, found.peak_memory_bytes) == (False, kept.peak_memory_bytes)
    assert found.device_memory_bytes == large.memory_bytes
    assert found.memory_needs == {
        "fp32": MemoryNeed(kept.peak_memory_bytes, recomputed.peak_memory_bytes),
        "bf16": MemoryNeed(half, half_recomputed),
    }
    # A large device that would have to compute in float32, and a smaller one that computes in bfloat16.
    slow, fast = Device("cpu", half + 1), Device("GPU", half, computes_bf16=True)
    found = prepare(slow, fast, precision="auto", gradient_checkpointing=False)
    assert (found.peak_memory_bytes, found.device_memory_bytes) == (half, half)


@pytest.mark.parametrize(("changed", "known"), [({}, True), ({"gradient_checkpointing": False}, False)])
def test_the_need_with_recomputed_blocks_is_known_before_a_device_is_too_small(
    prepare: Prepare, changed: dict[str, Any], known: bool
) -> None:
    need = prepare(10**12, **changed).memory_needs["fp32"]
    assert (need.recomputed is not None) is known
    assert prepare(10**12, method="prefix", **changed).memory_needs["fp32"].recomputed is None


@pytest.mark.parametrize(("changed", "traces"), [({}, 2), ({"gradient_checkpointing": False}, 1)])
def test_each_step_is_traced_once(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], traces: int
) -> None:
    traced: list[Hyperparameters] = []

    def trace(model: Any, shapes: Any, hyperparameters: Hyperparameters, **given: Any) -> Any:
        traced.append(hyperparameters)
        return predict_step_memory(model, shapes, hyperparameters, **given)

    monkeypatch.setattr("greencore.training.run_memory.predict_step_memory", trace)
    prepare(10**12, 10**11, **changed)
    assert len(traced) == traces


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


@pytest.mark.parametrize(("computes_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_the_prediction_follows_the_arithmetic_that_the_worker_reports(
    prepare: Prepare, database: Database, computes_bf16: bool, expected: str
) -> None:
    device = find_only_device(database, memory_bytes=10**12, computes_bf16=computes_bf16)
    assert device is not None
    chosen = prepare(device, precision="auto").peak_memory_bytes
    assert chosen == prepare(device, precision=expected).peak_memory_bytes
    assert (chosen == prepare(device, precision="mixed").peak_memory_bytes) is not computes_bf16


@pytest.mark.parametrize(("memory_bytes", "computes_bf16"), [(1000, None), (None, True)])
def test_a_device_that_an_older_worker_reports_in_part_refuses_nothing(
    prepare: Prepare, database: Database, memory_bytes: int | None, computes_bf16: bool | None
) -> None:
    device = find_only_device(database, memory_bytes=memory_bytes, computes_bf16=computes_bf16)
    assert device is None
    assert prepare(device).device_memory_bytes is None


def find_only_device(database: Database, **device: Any) -> Device | None:
    """Return the device, as preparation sees it, of a worker that reports its memory and arithmetic so."""
    add_worker(database, "FR", device="some GPU", **device)
    with database.session() as session:
        [found] = list_live_devices(session, zone=None, within=timedelta(minutes=1))
    return found


@pytest.mark.parametrize(("attention", "status"), [("flash", JobStatus.FAILED), ("sdpa", JobStatus.QUEUED)])
def test_a_processor_does_not_hold_a_job_with_flash_attention(
    database: Database,
    worker_settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attention: str,
    status: JobStatus,
) -> None:
    settings = holding(worker_settings, small_model(tmp_path / "small"))
    monkeypatch.setattr("worker.preparation.prepare.get_settings", lambda: settings)
    settings.datasets_dir.mkdir(parents=True, exist_ok=True)
    settings.dataset_file("rows").write_text(ROWS)
    add_worker(database, "FR", name="gpu", device="GPU", memory_bytes=1000, computes_bf16=True)
    add_worker(database, "FR", name="processor", memory_bytes=10**12, computes_bf16=True)
    job_id = add_job(
        database,
        JobStatus.VALIDATING,
        model="small",
        method="full",
        hyperparameters={"batch_size": 4, "precision": "bf16", "attention": attention},
        dataset={"rows": 20, "blob": "rows"},
    )
    prepare_job(job_id)
    job = read_job(database, job_id)
    assert job.status is status, job.error
    assert status is JobStatus.QUEUED or (job.error or {})["title"] == "The device has too little memory"


def test_the_hosts_memory_is_at_most_its_containers(tmp_path: Path) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "unlimited"
    limit.write_text("1000000\n")
    none.write_text("max\n")
    assert read_host_memory([limit]) == 1_000_000
    assert read_host_memory([none, tmp_path / "absent"]) == read_host_memory([])


@pytest.mark.parametrize("method", ["full", "greentrainer", "lora"])
def test_each_of_two_processes_takes_less_than_one_and_more_than_half(prepare: Prepare, method: str) -> None:
    one, two = (prepare(method=method, gpus=gpus).step_memory for gpus in (1, 2))
    assert one is not None
    assert two is not None
    assert two.rows == one.rows // 2
    assert one.peak / 2 < two.peak < one.peak
    assert (two.gradients, two.optimizer_state) == (-(-one.gradients // 2), -(-one.optimizer_state // 2))


def test_auto_takes_the_fewest_gpus_that_hold_the_job(prepare: Prepare) -> None:
    peaks = {gpus: prepare(gpus=gpus, gradient_checkpointing=False).peak_memory_bytes for gpus in (1, 2, 4)}
    alone, two, four = (peak for peak in peaks.values() if peak is not None)
    assert alone > two > four

    def choose(memory_bytes: int, gpus: int, **settings: Any) -> JobEstimate:
        device = Device("GPU", memory_bytes, gpus=gpus)
        return prepare(device, gpus=None, gradient_checkpointing=False, **settings)

    assert choose(alone, 8).gpus == 1
    found = choose(two, 8)
    assert (found.gpus, found.peak_memory_bytes, found.memory_needs["fp32"].kept) == (2, two, two)
    assert choose(four, 4).gpus == 4
    with pytest.raises(DeviceTooSmall, match="a step needs in each of 2 processes"):
        choose(four, 2)
    with pytest.raises(DeviceTooSmall):  # adafactor does not run in several processes
        choose(two, 8, optimizer="adafactor", batch_size=64)
    with pytest.raises(DeviceTooSmall, match=r"or resources\.gpus 2"):
        prepare(Device("GPU", two, gpus=8), gpus=1, gradient_checkpointing=False)


def test_a_job_that_leaves_its_gpus_open_has_their_number_once_it_is_prepared(
    database: Database, worker_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Prepare
) -> None:
    settings = holding(worker_settings, small_model(tmp_path / "own", layers=3))
    monkeypatch.setattr("worker.preparation.prepare.get_settings", lambda: settings)
    settings.datasets_dir.mkdir(parents=True, exist_ok=True)
    settings.dataset_file("rows").write_text(ROWS)
    checked: list[int] = []
    monkeypatch.setattr("worker.preparation.prepare.check_budget", lambda _, job, *__, **___: checked.append(job.gpus))
    two = prepare(gpus=2, gradient_checkpointing=False).peak_memory_bytes
    add_worker(database, "FR", gpus=8, device="GPU", memory_bytes=two, computes_bf16=False)
    job_id = add_job(
        database,
        JobStatus.VALIDATING,
        model="small",
        method="full",
        hyperparameters={"batch_size": 16, "precision": "fp32", "gradient_checkpointing": False},
        dataset={"rows": 20, "blob": "rows"},
        gpus_asked=None,
    )
    prepare_job(job_id)
    job = read_job(database, job_id)
    assert (job.status, job.gpus_asked, job.gpus) == (JobStatus.QUEUED, None, 2), job.error
    assert checked == [2]  # a budget is compared with what as many use
