"""Logits at learned positions alone: the same loss and gradients, for every family, padded and packed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from benchmarks.training.families import FAMILIES, build_family_model
from greencore.training.batches.learned_positions import (
    LearnedPositionsCollator,
    choose_logit_positions,
    computes_learned_positions,
    find_learned_positions,
    get_targets,
    takes_learned_positions,
)
from greencore.training.batches.micro_batches import Collate
from greencore.training.batches.packing import PackedCollator
from greencore.training.data.tokenisation import IGNORED_LABEL, Collator, Example
from greencore.training.evaluation.token_loss import sum_token_loss
from greencore.training.methods.adapters import with_adapter
from greencore.training.models.loading import load_model
from tests.greencore.training.families import FAMILIES as SAVED_FAMILIES
from tests.greencore.training.families import family_folder

ENCODER_DECODERS = ("t5", "flan-t5", "bart")
DECODERS = [name for name in FAMILIES if name not in ENCODER_DECODERS]
ROUTED = [name for name in SAVED_FAMILIES if "moe" in name or name in ("mixtral", "gemma3")]
LABELS = st.lists(st.sampled_from([IGNORED_LABEL, 3, 7]), min_size=2, max_size=20)


def make_examples() -> list[Example]:
    """Rows of several lengths, some learned whole, at their end, and in two turns."""
    draw, made = torch.Generator().manual_seed(2), []
    for length, learned in [(21, range(14, 21)), (9, range(9)), (30, [*range(4, 9), *range(20, 26)]), (12, [11])]:
        ids = torch.randint(3, 60, (length,), generator=draw).tolist()
        made.append(Example(tuple(ids), tuple(ids[i] if i in learned else IGNORED_LABEL for i in range(length))))
    return made


def compute_gradients(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def measure_difference(model: torch.nn.Module, collate: Collate, examples: Sequence[Example]) -> float:
    """Return the largest relative difference of the loss and of a tensor's gradient."""
    loss, gradients = compute_gradients(model, _plain(collate, examples))
    found, others = compute_gradients(model, _plain(LearnedPositionsCollator(collate), examples))
    assert gradients.keys() == others.keys()
    differences = [abs(found - loss) / loss]
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        differences.append(float((others[name] - gradient).norm()) / max(float(gradient.norm()), 1e-3 * scale))
    return max(differences)


def _plain(collate: Collate, examples: Sequence[Example]) -> dict[str, Any]:
    return {name: value for name, value in collate(examples).items() if name != "use_cache"}


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return cast(PreTrainedModel, build_family_model(name, "eager").eval())


@pytest.mark.parametrize("name", DECODERS)
def test_loss_and_gradients_are_those_of_all_positions(name: str) -> None:
    model = build(name)
    assert computes_learned_positions(model)
    assert measure_difference(model, Collator(0), make_examples()) < 1e-6


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "bloom"])  # which cannot be packed
def test_packed_rows_have_the_same_loss_and_gradients(name: str) -> None:
    model = build(name)
    assert measure_difference(model, PackedCollator(model, 0), make_examples()) < 1e-6


@pytest.mark.parametrize("name", ROUTED)
def test_a_routers_loss_keeps_its_part(name: str, tmp_path: Path) -> None:
    settings = {} if name == "gemma3" else {"output_router_logits": True, "router_aux_loss_coef": 0.5}
    model = load_model(family_folder(name, tmp_path, **settings)).eval()
    assert computes_learned_positions(model)
    assert measure_difference(model, Collator(0), make_examples()) < 1e-6


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gemma2", {"final_logit_softcapping": 3.0}),
        ("cohere", {"logit_scale": 0.2, "intermediate_size": 64, "num_key_value_heads": 2}),
        ("granite", {"logits_scaling": 5.0, "intermediate_size": 64, "num_key_value_heads": 2}),
        ("mamba", {"state_size": 4, "num_hidden_layers": 2}),
    ],
)
def test_caps_and_scales_of_logits_keep_their_meaning(name: str, settings: dict[str, Any]) -> None:
    sizes = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes | settings)).eval()
    assert computes_learned_positions(model)
    assert measure_difference(model, Collator(0), make_examples()) < 1e-6


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_an_adapter_has_the_same_loss_and_gradients(method: Any) -> None:
    torch.manual_seed(0)
    model = with_adapter(method, build_family_model("llama", "eager")).eval()
    assert measure_difference(model, Collator(0), make_examples()) < 1e-6


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_encoder_decoder_computes_all_logits(name: str, tmp_path: Path) -> None:
    model = build_family_model(name, "eager")
    assert not takes_learned_positions(model)
    assert choose_logit_positions("learned", model, tmp_path, resumes=False) == "all"


def ignore_positions(forward: Callable[..., Any]) -> Callable[..., Any]:
    def compute(*args: Any, logits_to_keep: Any = None, shift_labels: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return compute


def shift_positions(forward: Callable[..., Any]) -> Callable[..., Any]:
    def compute(*args: Any, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
        moved = logits_to_keep - 1 if isinstance(logits_to_keep, torch.Tensor) else logits_to_keep
        return forward(*args, logits_to_keep=moved.clamp(min=0) if moved is not logits_to_keep else moved, **kwargs)

    return compute


@pytest.mark.parametrize("broken", [ignore_positions, shift_positions])
def test_a_model_that_computes_others_computes_all(broken: Any, tmp_path: Path) -> None:
    model = build_family_model("llama", "eager")
    assert computes_learned_positions(model)
    model.forward = broken(model.forward)
    assert takes_learned_positions(model)
    assert choose_logit_positions("learned", model, tmp_path, resumes=False) == "all"


def test_a_run_keeps_its_choice(tmp_path: Path) -> None:
    model = build_family_model("llama", "eager")
    before, new = tmp_path / "before", tmp_path / "new"
    assert choose_logit_positions("learned", model, before, resumes=True) == "all"  # of an earlier version
    assert choose_logit_positions("learned", model, before, resumes=True) == "all"
    assert choose_logit_positions("learned", model, new, resumes=False) == "learned"
    assert choose_logit_positions("learned", model, new, resumes=True) == "learned"
    assert choose_logit_positions("all", model, tmp_path / "all", resumes=False) == "all"


@given(st.lists(LABELS, min_size=1, max_size=5))
def test_the_learned_tokens_are_those_of_all_positions(rows: list[list[int]]) -> None:
    length = max(map(len, rows))
    labels = torch.tensor([[*row, *[IGNORED_LABEL] * (length - len(row))] for row in rows])
    found = find_learned_positions(labels)
    kept, targets = found["logits_to_keep"], found["shift_labels"]
    assert kept.shape == targets.shape
    assert kept.shape[1] <= min(length, (int((labels[:, 1:] != IGNORED_LABEL).sum(1).max()) + 7) // 8 * 8 or 8)
    for row, positions, tokens in zip(labels, kept, targets, strict=True):
        learned = tokens != IGNORED_LABEL
        assert positions[learned].tolist() == [i for i in range(length - 1) if row[i + 1] != IGNORED_LABEL]
        assert tokens[learned].tolist() == [int(label) for label in row[1:] if label != IGNORED_LABEL]
    assert len(set(map(tuple, (positions.unique().shape for positions in kept)))) == 1  # no position is there twice


def test_the_token_loss_is_that_of_all_positions() -> None:
    model, collate = build("llama"), Collator(0)
    sums = []
    for batch in (collate(make_examples()), LearnedPositionsCollator(collate)(make_examples())):
        with torch.no_grad():
            logits = model(**batch).logits
        sums.append(sum_token_loss(logits, get_targets(batch, encoder=False)))
    assert float(sums[0][0]) == pytest.approx(float(sums[1][0]), rel=1e-9)
    assert sums[0][1] == sums[1][1] == 7 + 8 + 11 + 1
