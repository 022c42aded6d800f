"""The reported loss is the mean token loss for every model class, without other terms of the model's loss."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import (
    BartConfig,
    BartForCausalLM,
    CTRLConfig,
    CTRLLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MBartConfig,
    MBartForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PegasusConfig,
    PegasusForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    XLNetConfig,
    XLNetLMHeadModel,
)

from greencore.dataset import PromptRow, Row, TextRow
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.learned_positions import get_targets
from greencore.training.data.tokenisation import IGNORED_LABEL, tokenise_rows
from greencore.training.evaluation.evaluate import score_tokens
from greencore.training.evaluation.token_loss import count_correct_tokens
from greencore.training.listener import TrainingListener
from greencore.training.models.loading import ModelError, load_meta_model, load_model, load_tokenizer
from greencore.training.run import Method, fine_tune

SMALL: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ROUTED: Any = {"num_experts_per_tok": 2, "output_router_logits": True, "router_aux_loss_coef": 0.5}
GPT: Any = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 64}
OFF: Any = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SWITCH: Any = {
    **{"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    **{"num_experts": 4, "expert_capacity": 64, "dropout_rate": 0.0, "router_jitter_noise": 0.0},
    **{"output_router_logits": True, "router_z_loss_coef": 0.5, "router_aux_loss_coef": 0.5},
    **{"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 0},
}

DECODER: Any = {
    **{"vocab_size": 64, "d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 32},
    **{"is_decoder": True, "is_encoder_decoder": False},
}

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "GPT-2": lambda: GPT2LMHeadModel(GPT2Config(**GPT, **OFF)),
    "GPT": lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(**GPT, **OFF)),
    "CTRL": lambda: CTRLLMHeadModel(CTRLConfig(**GPT, dff=64, resid_pdrop=0.0, embd_pdrop=0.0)),
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=64, **SMALL)),
    "Mixtral": lambda: MixtralForCausalLM(
        MixtralConfig(vocab_size=64, num_local_experts=4, num_key_value_heads=4, **SMALL, **ROUTED)
    ),
    "Qwen 3 MoE": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(vocab_size=64, num_experts=4, moe_intermediate_size=16, **SMALL, **ROUTED)
    ),
    "Switch": lambda: SwitchTransformersForConditionalGeneration(SwitchTransformersConfig(**SWITCH)),
}
TEXTS: list[Row] = [TextRow("w1 w2 w3"), TextRow("w4 w5"), TextRow("w6 w7 w8 w9 w10")]
PROMPTS: list[Row] = [PromptRow("w1 w2", "w3"), PromptRow("w4", "w5 w6 w7"), PromptRow("w8", "w9")]


class Losses(TrainingListener):
    """Listener that records every step's loss."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.seen.append(loss)


def folder_of(family: str, words: Path, folder: Path) -> Path:
    """Return a model with random weights over the small model's words."""
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(folder)
    load_tokenizer(words).save_pretrained(folder)
    return folder


def token_loss(model: PreTrainedModel, rows: list[Row], folder: Path) -> float:
    """Compute the mean over all learned tokens row by row."""
    encoder, total, tokens = bool(model.config.is_encoder_decoder), 0.0, 0
    for example in tokenise_rows(rows, load_tokenizer(folder), max_length=64, encoder=encoder).examples:
        ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
        with torch.no_grad():
            logits = model.eval()(input_ids=ids, labels=labels).logits[0]
        logits, targets = (logits, labels[0]) if encoder else (logits[:-1], labels[0, 1:])
        total += float(functional.cross_entropy(logits, targets, reduction="sum"))
        tokens += int((targets >= 0).sum())
    return total / tokens


@pytest.mark.fault(number=9)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_evaluation_reports_the_mean_token_loss(family: str, model_folder: Path, tmp_path: Path) -> None:
    folder = folder_of(family, model_folder, tmp_path / "model")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    encoder = bool(model.config.is_encoder_decoder)
    for rows in [PROMPTS] if encoder else [PROMPTS, TEXTS]:
        tokens = tokenise_rows(rows, tokenizer, max_length=64, encoder=encoder)
        expected = token_loss(model, rows, folder)
        assert score_tokens(model, tokenizer, tokens, batch_size=2).loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.fault(number=9)
@pytest.mark.parametrize(
    ("family", "method"),
    [("GPT-2", "full"), ("GPT-2", "greentrainer"), ("GPT-2", "lora"), ("Qwen 3 MoE", "full"), ("Mixtral", "full")],
)
def test_training_reports_the_mean_token_loss(family: str, method: Method, model_folder: Path, tmp_path: Path) -> None:
    folder = folder_of(family, model_folder, tmp_path / "model")
    losses = Losses()
    settings = Hyperparameters(epochs=1, batch_size=3, learning_rate=1e-12, eval_share=0, max_length=64)
    fine_tune(
        model_folder=folder, rows=TEXTS, hyperparameters=settings, method=method, folder=tmp_path, listener=losses
    )
    expected = token_loss(load_model(folder), TEXTS, folder)
    assert losses.seen == [pytest.approx(expected, rel=2e-2)]  # the accuracy of bfloat16 autocast


@pytest.mark.fault(number=9)
@pytest.mark.parametrize("family", ["GPT-2", "Llama"])
def test_the_gradient_of_a_text_is_that_of_its_mean_token_loss(family: str, model_folder: Path, tmp_path: Path) -> None:
    folder = folder_of(family, model_folder, tmp_path / "model")
    settings = Hyperparameters(epochs=1, batch_size=1, learning_rate=1e-12, eval_share=0, max_length=64)
    fine_tune(
        model_folder=folder, rows=[TextRow("w1 w2")], hyperparameters=settings, method="full", folder=tmp_path / "run"
    )
    [state] = (tmp_path / "run").rglob("trainer_state.json")
    [entry] = [entry for entry in json.loads(state.read_text())["log_history"] if "loss" in entry]
    model = load_model(folder)
    model(input_ids=torch.tensor([[3, 4, 0]]), labels=torch.tensor([[3, 4, 0]])).loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert entry["grad_norm"] == pytest.approx(float(norm), rel=3e-2)


DECODERS: dict[str, Callable[[], PreTrainedModel]] = {
    "BART": lambda: BartForCausalLM(BartConfig(**DECODER)),
    "mBART": lambda: MBartForCausalLM(MBartConfig(**DECODER)),
    "Pegasus": lambda: PegasusForCausalLM(PegasusConfig(**DECODER)),
    "XLNet": lambda: XLNetLMHeadModel(XLNetConfig(vocab_size=64, d_model=32, n_layer=1, n_head=4, d_inner=32)),
}


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_whose_loss_is_not_of_the_next_token_is_refused(family: str, tmp_path: Path) -> None:
    DECODERS[family]().save_pretrained(tmp_path)
    for load in (load_model, load_meta_model):
        with pytest.raises(ModelError, match="not that of the next token"):
            load(tmp_path)


@pytest.mark.parametrize("encoder", [False, True])
def test_a_learned_token_is_correct_where_it_has_the_highest_logit(encoder: bool) -> None:
    labels = torch.tensor([[IGNORED_LABEL, 1, 2, 3], [0, IGNORED_LABEL, 2, IGNORED_LABEL]])
    guessed = torch.tensor([[3, 1, 0, 3], [0, 1, 2, 3]])
    logits = torch.nn.functional.one_hot(guessed, 4).float()
    if not encoder:  # position i predicts the token after it; the last predicts none
        logits = torch.cat([logits[:, 1:], torch.zeros(2, 1, 4)], dim=1)

    targets = get_targets({"labels": labels}, encoder=encoder)
    assert count_correct_tokens(logits, targets) == (4 if encoder else 3)
