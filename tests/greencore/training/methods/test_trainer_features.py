"""The budget with other Trainer features: precision, recomputation, packing, stopping, resuming."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, T5Config, T5ForConditionalGeneration, TrainerCallback

from greencore.backprop import Profile, profile
from greencore.dataset import PromptRow, Row
from greencore.training import BaselineCallback, GreenTrainerCallback
from greencore.training.batches.packing import PackedCollator
from greencore.training.data.tokenisation import Collator, Example
from greencore.training.methods.adapters import with_adapter
from greencore.training.methods.baselines import Baseline
from greencore.training.methods.selection_callback import SelectionCallback
from greencore.training.models.loading import load_model
from tests.greencore.training.conftest import small_model
from tests.greencore.training.methods.trainers import CountingTrainer, counting_trainer

Train = Callable[..., tuple[CountingTrainer, PreTrainedModel]]


@pytest.fixture(scope="module")
def train(model_folder: Path, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train with one callback, or none, and return the trainer and the model."""
    folder = tmp_path_factory.mktemp("runs")

    def run(
        callback: SelectionCallback | None = None, *, resume: str | None = None, **options: Any
    ) -> tuple[CountingTrainer, PreTrainedModel]:
        callbacks = [*options.pop("callbacks", []), *([callback] if callback else [])]
        data = options.pop("data", rows)
        trainer, model = counting_trainer(
            model_folder, options.pop("output", folder / "run"), data, callbacks, **options
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer, model

    return run


def encoder_decoder() -> PreTrainedModel:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)


def assert_within(trainer: CountingTrainer, full: CountingTrainer, green: SelectionCallback, rho: float) -> None:
    """Assert that every counted step is within ρ, and that the epochs use it up, also by their own reports.

    Those that measure importance take what the reports say.
    """
    assert max(list_shares(trainer, full, green)) <= rho
    spent, whole = (sum(getattr(report, field) for report in green.epochs) for field in ("flops", "full_flops"))
    spent += sum(report.probe_flops for report in green.epochs) if any(trainer.list_measured(green)) else 0
    share = sum(trainer.counted) / sum(full.counted)
    assert share == pytest.approx(spent / whole, abs=0.03)  # torch counts products alone
    assert share > rho - 0.03
    assert all(rho - 0.03 < report.share <= rho for report in green.epochs)


def list_shares(trainer: CountingTrainer, full: CountingTrainer, green: SelectionCallback) -> list[float]:
    """List the share of full fine-tuning's FLOPs of every batch that trains a selection alone."""
    measured = trainer.list_measured(green)
    assert 0 < sum(measured) < len(measured)
    counted = zip(trainer.counted, full.counted, measured, strict=True)
    return [batch / whole for batch, whole, measures in counted if not measures]


@pytest.fixture(scope="module")
def full(train: Train) -> Callable[[bool], CountingTrainer]:
    """Full fine-tuning for two epochs, recomputing or not: no other option of a test changes the FLOPs of a batch."""
    return cache(lambda recomputing: train(epochs=2, activation_checkpointing=recomputing)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"bf16": True, "gradient_accumulation_steps": 2},
        {"optim": "adafactor", "max_grad_norm": 0.0},
        {"activation_checkpointing": True},
        {"activation_checkpointing": True, "bf16": True},
    ],
    ids=str,
)
def test_every_real_step_stays_within_rho(
    train: Train, full: Callable[[bool], CountingTrainer], options: dict[str, Any]
) -> None:
    green = GreenTrainerCallback(0.6)
    trainer, _ = train(green, epochs=2, **options)
    assert_within(trainer, full("activation_checkpointing" in options), green, 0.6)


def test_recomputation_does_not_change_importance(train: Train) -> None:
    plain, recomputed = GreenTrainerCallback(0.8), GreenTrainerCallback(0.8)
    train(plain, epochs=1, counting=False)
    train(recomputed, epochs=1, counting=False, activation_checkpointing=True)
    [one], [other] = plain.epochs, recomputed.epochs
    both = one.importance.keys() & other.importance.keys()  # with more recomputed, other tensors are within reach
    assert len(both) > 20
    assert {name: one.importance[name] for name in both} == pytest.approx(
        {name: other.importance[name] for name in both}, rel=1e-4
    )


def test_packed_rows_stay_within_rho(train: Train, model_folder: Path) -> None:
    collator = PackedCollator(load_model(model_folder), 0)
    full, _ = train(epochs=2, collator=collator)
    green = GreenTrainerCallback(0.6)
    trainer, _ = train(green, epochs=2, collator=collator)
    assert_within(trainer, full, green, 0.6)


def test_an_encoder_decoder_stays_within_rho_at_every_pair_of_lengths(train: Train) -> None:
    draw = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 50, (16, 2), generator=draw).tolist()
    data = [PromptRow(" ".join(["w1"] * source), " ".join(["w2"] * target)) for source, target in lengths]
    full, _ = train(epochs=2, data=data, model=encoder_decoder())
    green = GreenTrainerCallback(0.6)
    trainer, _ = train(green, epochs=2, data=data, model=encoder_decoder())
    shares = list_shares(trainer, full, green)
    # The budget holds for a short source with a long target too, so pairs of similar lengths do not use it up.
    assert 0.45 < max(shares) <= 0.6
    assert all(0.45 < report.share <= 0.6 for report in green.epochs)


def test_an_encoder_decoder_uses_the_budget_up_where_its_lengths_are_always_the_same(train: Train) -> None:
    data = [PromptRow(" ".join(["w1"] * 30), " ".join(["w2"] * 12))] * 8
    full, _ = train(epochs=1, data=data, model=encoder_decoder())
    green = GreenTrainerCallback(0.6)
    trainer, _ = train(green, epochs=1, data=data, model=encoder_decoder())
    assert_within(trainer, full, green, 0.6)


def test_batches_grouped_by_length_stay_within_rho(model_folder: Path, rows: list[Row], tmp_path: Path) -> None:
    def trained(*callbacks: SelectionCallback) -> CountingTrainer:
        trainer, _ = counting_trainer(
            model_folder, tmp_path, rows, callbacks, train_sampling_strategy="group_by_length", epochs=2
        )
        examples: Any = trainer.train_dataset
        trainer.train_dataset = [{"input_ids": e.input_ids, "labels": e.labels} for e in examples]
        trainer.data_collator = lambda batch: Collator(0)([Example(**row) for row in batch])
        trainer.train()
        return trainer

    green = GreenTrainerCallback(0.6)
    assert max(list_shares(trained(green), trained(), green)) <= 0.6
    assert all(0.57 < report.share <= 0.6 for report in green.epochs)


def test_early_stopping_ends_a_run_with_complete_reports(train: Train) -> None:
    green = GreenTrainerCallback(0.7)
    trainer, model = train(
        green,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1)],
        epochs=8,
        counting=False,
        evaluate=True,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        learning_rate=0.01,  # too much: the loss soon rises
    )
    assert trainer.state.global_step < trainer.state.max_steps
    assert [report.epoch for report in green.epochs] == list(range(len(green.epochs)))
    assert all(0.67 < report.share <= 0.7 for report in green.epochs)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_importance_is_measured_again_every_few_steps(train: Train) -> None:
    green = GreenTrainerCallback(0.5, reselect_every=2)
    trainer, _ = train(green, epochs=2, counting=False)
    steps = trainer.state.max_steps // 2
    assert [[s.step for s in report.selections] for report in green.epochs] == [
        list(range(0, steps, 2)),
        list(range(steps, 2 * steps, 2)),
    ]
    for report in green.epochs:
        assert report.probe_flops == sum(selection.probe_flops for selection in report.selections) > 0
        assert report.share <= 0.5


@pytest.fixture
def deep(tmp_path: Path) -> PreTrainedModel:
    """A model whose tensors fill any budget."""
    return load_model(small_model(tmp_path, layers=6))


@pytest.mark.parametrize("options", [{}, {"reselect_every": 9}, {"probe_batches": 2}, {"accumulated": 2}], ids=str)
def test_a_charged_probe_counts_towards_the_epochs_budget(
    train: Train, deep: PreTrainedModel, rows: list[Row], options: dict[str, Any]
) -> None:
    settings = dict(options)
    accumulated = settings.pop("accumulated", 1)
    green = GreenTrainerCallback(0.8, charge_probe=True, **settings)
    train(green, data=rows * 8, epochs=2, counting=False, model=deep, gradient_accumulation_steps=accumulated)
    for report in green.epochs:
        assert report.probe_flops > 0
        assert report.share < report.share_with_probe <= 0.8
        assert report.share_with_probe > 0.6


def test_more_probe_batches_cost_more_and_are_reported(train: Train) -> None:
    one, three = GreenTrainerCallback(0.6, probe_batches=1), GreenTrainerCallback(0.6, probe_batches=3)
    train(one, epochs=1, counting=False)
    train(three, epochs=1, counting=False)
    assert three.epochs[0].probe_flops > 2 * one.epochs[0].probe_flops
    assert three.epochs[0].probe_seconds > 0


@pytest.mark.parametrize(("treatment", "keeps"), [("release", False), ("host", True), ("keep", True)])
def test_a_deselected_tensors_optimiser_state_is_treated_as_configured(
    train: Train, treatment: Any, keeps: bool
) -> None:
    seen: list[int] = []

    class Watch(GreenTrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_epoch_end(args, state, control, **kwargs)
            seen.append(len(kwargs["optimizer"].state))

    green = Watch(lambda epoch: [0.9, 0.5][epoch], optimizer_state=treatment)
    train(green, epochs=2, counting=False)
    chosen = [set(report.tensors) for report in green.epochs]
    assert chosen[0] - chosen[1]
    assert seen == [len(chosen[0]), len(chosen[0] | chosen[1]) if keeps else len(chosen[1])]


def test_unknown_options_are_refused_with_what_is_expected() -> None:
    with pytest.raises(ValueError, match="optimizer_state is one of release, host, keep"):
        GreenTrainerCallback(0.5, optimizer_state="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reselect_every is 0"):
        GreenTrainerCallback(0.5, reselect_every=0)
    with pytest.raises(ValueError, match="probe_batches is 0"):
        GreenTrainerCallback(0.5, probe_batches=0)


class SavesAt(TrainerCallback):
    """Saves a checkpoint after each of these steps."""

    def __init__(self, *steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = state.global_step in self._steps


@pytest.mark.parametrize("options", [{}, {"reselect_every": 2, "optimizer_state": "keep"}], ids=str)
def test_a_resumed_run_ends_with_the_same_weights(train: Train, tmp_path: Path, options: dict[str, Any]) -> None:
    def green() -> GreenTrainerCallback:
        return GreenTrainerCallback(lambda epoch: [0.8, 0.5, 0.7][epoch], **options)

    whole = green()
    before_an_epoch, after_its_first_step, within_it = 5, 6, 8
    steps = (before_an_epoch, after_its_first_step, within_it)
    _, expected = train(whole, output=tmp_path, counting=False, callbacks=[SavesAt(*steps)])
    for at in steps:
        again = green()
        _, resumed = train(again, counting=False, resume=str(tmp_path / f"checkpoint-{at}"))
        for (name, one), other in zip(expected.named_parameters(), resumed.named_parameters(), strict=True):
            assert torch.equal(one, other[1]), name
        for ours in again.epochs:
            [theirs] = [report for report in whole.epochs if report.epoch == ours.epoch]
            assert (ours.tensors, ours.flops, ours.full_flops, ours.probe_flops) == (
                theirs.tensors,
                theirs.flops,
                theirs.full_flops,
                theirs.probe_flops,
            )


EQUAL_ROWS = [PromptRow(" ".join(["w1"] * 20), " ".join(["w2"] * 11))] * 8
EQUAL_BATCH = {key: torch.zeros(4, 32, dtype=torch.long) for key in ("input_ids", "labels")}


def as_trained(model: PreTrainedModel) -> PreTrainedModel:
    """Set the mode that a Trainer sets, without a cache of keys."""
    model.config.use_cache = False
    model.train()
    return model


@pytest.fixture(scope="module")
def costs(model_folder: Path) -> Profile:
    return profile(as_trained(load_model(model_folder)), EQUAL_BATCH)


@pytest.mark.parametrize("method", ["full", "top2", "layernorm", "qv", "progressive"])
def test_a_baselines_flops_are_counted_as_ours(train: Train, costs: Profile, method: Baseline) -> None:
    baseline = BaselineCallback(method)
    trainer, _ = train(baseline, data=EQUAL_ROWS, epochs=3 if method == "progressive" else 1)
    for report, counted in zip(baseline.epochs, zip(*[iter(trainer.counted)] * 2, strict=True), strict=True):
        assert counted == (costs.matmul_step_flops(report.tensors),) * 2
        assert report.flops == 2 * costs.step_flops(report.tensors)
        assert report.full_flops == 2 * costs.full_flops
        assert (report.share == 1.0) == (method == "full" or (method == "progressive" and report.epoch == 2))


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_an_adapter_is_compared_with_full_fine_tuning_of_the_model_below_it(
    train: Train, model_folder: Path, costs: Profile, method: Any
) -> None:
    baseline = BaselineCallback(method)
    adapted: Any = with_adapter(method, load_model(model_folder))
    trainer, _ = train(baseline, data=EQUAL_ROWS, epochs=1, model=adapted)
    [report] = baseline.epochs
    adapter = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert set(report.tensors) == set(adapter)
    own = profile(as_trained(adapted), EQUAL_BATCH, names=adapter)
    assert trainer.counted == [own.matmul_step_flops(adapter)] * 2
    assert report.flops == 2 * own.full_flops
    assert report.full_flops == 2 * costs.full_flops


def test_a_stream_of_rows_is_trained_within_rho(
    train: Train, model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    green = GreenTrainerCallback(0.6)
    trainer, _ = counting_trainer(model_folder, tmp_path, rows, [green], max_steps=4, counting=False)
    examples = trainer.train_dataset

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter(examples)  # type: ignore[arg-type]

    trainer.train_dataset = Stream()
    trainer.data_collator = Collator(0)
    trainer.train()
    assert all(report.share <= 0.6 for report in green.epochs)
    assert trainer.state.global_step == 4


@pytest.mark.parametrize(
    ("probe_batches", "message"),
    [(1, "in the probe before step 1 the probe's loss is nan"), (None, "in step 1 the gradient's norm of .* is nan")],
)
def test_a_nan_loss_ends_the_run_with_an_error(
    train: Train, model_folder: Path, probe_batches: int | None, message: str
) -> None:
    broken = load_model(model_folder)
    with torch.no_grad():
        broken.get_parameter("model.norm.weight").fill_(3e38)  # finite, but no logit after it is
    with pytest.raises(ValueError, match=message):
        train(GreenTrainerCallback(0.6, probe_batches=probe_batches), model=broken, counting=False)


@pytest.mark.fault(number=2)
def test_weights_that_are_not_finite_before_training_are_named(train: Train, model_folder: Path) -> None:
    broken = load_model(model_folder)
    with torch.no_grad():
        broken.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"weight holds non-finite values before training"):
        train(GreenTrainerCallback(0.6), model=broken, counting=False)


def test_a_model_without_a_trainable_tensor_is_refused(train: Train, model_folder: Path) -> None:
    frozen = load_model(model_folder)
    frozen.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable tensor"):
        train(GreenTrainerCallback(0.6), model=frozen)
