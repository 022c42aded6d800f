"""Importance measured in a training step, whose gradients train what is selected, and before it, as it was."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from greencore.backprop import NotFinite, importance
from greencore.backprop.importance import BatchParts
from greencore.dataset import PromptRow, Row
from greencore.settings.method_settings import Metric
from greencore.training import GreenTrainerCallback
from greencore.training.batches.batch_shapes import measure_batch_shapes
from greencore.training.data.tokenisation import Collator, tokenise_rows
from greencore.training.methods.epoch_ledger import EpochLedger, Measurement, Reselection
from greencore.training.methods.selection_callback import STATE_KEY
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import load_model, load_tokenizer
from tests.greencore.training.conftest import small_model
from tests.greencore.training.methods.test_probe import Scaled
from tests.greencore.training.methods.trainers import CountingTrainer, counting_trainer

RHO = 0.6


class TrainsOnly(TrainerCallback):
    """Trains tensors that are known beforehand."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def on_epoch_begin(self, *_: Any, **kwargs: Any) -> None:
        for name, parameter in kwargs["model"].named_parameters():
            parameter.requires_grad_(name in self._names)


def train(
    model_folder: Path, rows: Sequence[Row], tmp_path: Path, *callbacks: TrainerCallback, **options: Any
) -> tuple[CountingTrainer, PreTrainedModel]:
    resume = options.pop("resume", None)
    trainer, model = counting_trainer(model_folder, tmp_path, rows, callbacks, counting=False, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, model


def assert_equal_weights(one: PreTrainedModel, other: PreTrainedModel) -> None:
    for (name, ours), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("metric", ["dw_grad", "dw", "grad"])
@pytest.mark.parametrize(
    "options",
    [
        {"max_grad_norm": 0.05},  # clips
        {"max_grad_norm": 0.0},
        {"max_grad_norm": 0.05, "gradient_accumulation_steps": 2},
        {"optim": "adafactor"},
    ],
    ids=str,
)
def test_a_measured_step_is_that_of_the_selection_alone_which_a_probe_of_its_batch_makes(
    model_folder: Path, rows: list[Row], tmp_path: Path, metric: Metric, options: dict[str, Any]
) -> None:
    green = GreenTrainerCallback(RHO, metric=metric)
    trainer, model = counting_trainer(model_folder, tmp_path, rows, [green], counting=False, max_steps=1, **options)
    batches: list[dict[str, Any]] = []
    model.register_forward_pre_hook(lambda _, __, given: batches.append(dict(given)), with_kwargs=True)
    trainer.train()
    assert trainer.args.max_grad_norm == options.get("max_grad_norm", 1.0)
    [report] = green.epochs
    selected = train(model_folder, rows, tmp_path, TrainsOnly(report.tensors), max_steps=1, **options)[1]
    assert_equal_weights(model, selected)

    untrained, fresh = counting_trainer(model_folder, tmp_path, rows, [], max_steps=1, **options)
    dataloader = untrained.get_train_dataloader()
    costs = StepCosts(fresh, measure_batch_shapes(dataloader, batch_size=4, encoder=False, longest_of_stream=64))
    fresh.train()
    probed = importance(
        fresh,
        [BatchParts(batches, [1.0] * len(batches))],
        untrained.create_optimizer(),
        metric,
        names=costs.list_affordable_tensors(RHO),
        max_grad_norm=options.get("max_grad_norm", 1.0) or None,
    )
    assert dict(report.importance) == pytest.approx(probed, rel=1e-5)
    assert set(costs.select(probed, RHO).names) == set(report.tensors)
    assert report.probe_seconds > 0


class ProbesApart(TrainerCallback):
    """Selects before each epoch by a probe of a batch of its own, by its definition."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model, optimizer, dataloader = kwargs["model"], kwargs["optimizer"], kwargs["train_dataloader"]
        if state.global_step == 0:
            shapes = measure_batch_shapes(dataloader, batch_size=4, encoder=False, longest_of_stream=64)
            self._costs = StepCosts(model, shapes)
        draw = torch.Generator().manual_seed(args.seed * 1_000_003 + state.global_step)
        rows = torch.randperm(len(dataloader.dataset), generator=draw).tolist()[:4]
        batch = dataloader.collate_fn([dataloader.dataset[row] for row in rows])
        names = self._costs.list_affordable_tensors(RHO)
        model.eval()
        found = importance(model, batch, optimizer, names=names, max_grad_norm=args.max_grad_norm)
        model.train()
        chosen = self._costs.select(found, RHO).names
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
            if name not in chosen:
                optimizer.optimizer.state.pop(parameter, None)


def test_a_probe_before_the_epoch_trains_what_it_selects_bit_by_bit(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    green = GreenTrainerCallback(RHO, metric="dw_grad", probe_batches=1)
    ours = train(model_folder, rows, tmp_path, green, epochs=2)[1]
    assert_equal_weights(ours, train(model_folder, rows, tmp_path, ProbesApart(), epochs=2)[1])
    assert len({report.tensors for report in green.epochs}) == 2


class SavesEveryStep(TrainerCallback):
    """Saves a checkpoint after each step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = True


def test_a_run_of_an_earlier_version_goes_on_with_the_probe_that_it_began_with(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    apart = GreenTrainerCallback(RHO, metric="dw_grad", probe_batches=1)
    expected = train(model_folder, rows, tmp_path, apart, SavesEveryStep(), epochs=2)[1]
    checkpoint = tmp_path / "checkpoint-3"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    del state["stateful_callbacks"][STATE_KEY]["measurement"]
    del state["stateful_callbacks"][STATE_KEY]["measured_steps"]
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    resumed = train(model_folder, rows, tmp_path, GreenTrainerCallback(RHO), epochs=2, resume=str(checkpoint))[1]
    assert_equal_weights(expected, resumed)


@pytest.mark.parametrize(("steps", "most"), [(18, 0.06), (100, 0.02)])
def test_a_measured_step_takes_a_small_part_of_an_epochs_work(tmp_path: Path, steps: int, most: float) -> None:
    deep = small_model(tmp_path / "model", layers=6)
    rows = [PromptRow(f"w{1 + number % 60} w2 w3 w4", " w5 w6 w7") for number in range(2 * steps)]
    green = GreenTrainerCallback(0.5)
    train(deep, rows, tmp_path / "run", green, epochs=1, per_device_train_batch_size=2)
    [report] = green.epochs
    assert 0 < report.probe_flops / (report.flops + report.probe_flops) <= most
    assert report.share <= 0.5
    assert report.share_with_probe == pytest.approx(report.share + report.probe_flops / report.full_flops)


class Step:
    """Runs steps of a callback by hand, with the loss scaler of fp16."""

    def __init__(self, model_folder: Path, rows: list[Row], *, scale: float) -> None:
        self.model, self.green = load_model(model_folder), GreenTrainerCallback(RHO)
        self.model.train()
        examples: Any = tokenise_rows(rows, load_tokenizer(model_folder), max_length=64).examples
        self.arguments = TrainingArguments(output_dir="unused", use_cpu=True, per_device_train_batch_size=4)
        self.state, self.control = TrainerState(max_steps=3, stateful_callbacks=[]), TrainerControl()
        dataloader = torch.utils.data.DataLoader(examples, batch_size=4, collate_fn=Collator(0))
        optimizer: Any = Scaled(torch.optim.AdamW(self.model.parameters(), lr=1e-3), scale)
        optimizer.param_groups = optimizer.optimizer.param_groups
        self.given = {"model": self.model, "optimizer": optimizer, "train_dataloader": dataloader}
        self.batch = next(iter(dataloader))
        self._call("on_train_begin")
        self._call("on_epoch_begin")

    def run(self, *, overflow: bool) -> int:
        """Run a step, and return how many tensors it has gradients to apply for."""
        self._call("on_step_begin")
        self.model(**self.batch).loss.backward()
        if overflow:
            gradient = self.model.get_parameter("model.norm.weight").grad
            assert gradient is not None
            gradient.fill_(float("inf"))
        self._call("on_pre_optimizer_step")
        applied = sum(parameter.grad is not None for parameter in self.model.parameters())
        self.model.zero_grad()
        self.state.global_step += 1
        self._call("on_step_end")
        return applied

    def end(self) -> None:
        self._call("on_epoch_end")

    def _call(self, event: str) -> None:
        getattr(self.green, event)(self.arguments, self.state, self.control, **self.given)


def test_a_step_whose_gradients_overflow_at_the_loss_scale_leaves_the_measurement_to_the_next(
    model_folder: Path, rows: list[Row]
) -> None:
    steps = Step(model_folder, rows, scale=2.0**16)
    assert steps.run(overflow=True) == 0
    ledger: Any = steps.state.stateful_callbacks
    assert ledger[STATE_KEY]["measurement"] is not None
    applied = steps.run(overflow=False)
    assert steps.run(overflow=False) == applied
    steps.end()
    [report] = steps.green.epochs
    [chosen] = report.selections
    assert (chosen.step, len(chosen.tensors)) == (0, applied)
    assert report.share <= RHO
    once = Step(model_folder, rows, scale=2.0**16)
    once.run(overflow=False)
    once.end()
    assert report.probe_flops == 2 * once.green.epochs[0].probe_flops  # the step that was passed over, too


def test_an_epoch_without_a_finite_step_reports_its_work_as_the_probes(model_folder: Path, rows: list[Row]) -> None:
    steps = Step(model_folder, rows, scale=2.0**16)
    steps.run(overflow=True)
    steps.end()
    [report] = steps.green.epochs
    assert report.tensors == ()
    assert report.flops + report.probe_flops > RHO * report.full_flops


def test_without_a_loss_scale_the_error_names_the_step(model_folder: Path, rows: list[Row]) -> None:
    steps = Step(model_folder, rows, scale=1.0)
    steps.state.global_step = 7
    with pytest.raises(NotFinite, match=r"in step 8 the gradient's norm of model.norm.weight is inf: training has"):
        steps.run(overflow=True)


def test_a_ledger_within_a_measurement_survives_json() -> None:
    ledger = EpochLedger(1, RHO)
    ledger.add_selection(Reselection(4, ("a",), {"a": 1.0, "b": 0.5}, 3, 0.1))
    ledger.begin_measurement(Measurement(6, ("a", "b")))
    again = EpochLedger.from_json(json.loads(json.dumps(ledger.to_json())))
    assert again.to_json() == ledger.to_json()
    assert again.trained == ("a", "b")
