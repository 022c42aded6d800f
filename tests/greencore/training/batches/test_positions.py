"""Position limits are read from the model, and no run exceeds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BioGptConfig,
    BioGptForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    CodeGenConfig,
    CodeGenForCausalLM,
    CTRLConfig,
    CTRLLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LEDConfig,
    LEDForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
    RobertaConfig,
    RobertaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    XGLMConfig,
    XGLMForCausalLM,
)

from greencore.dataset import PromptRow, Row, TextRow
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.positions import UNBOUNDED, MaxLengthExceeded, PositionLimits, get_position_limits
from greencore.training.data.tokenisation import Collator, tokenise_rows
from greencore.training.evaluation.evaluate import evaluate, generate_completions
from greencore.training.models.loading import load_tokenizer
from greencore.training.run import Method, fine_tune

pytestmark = pytest.mark.fault(number=8)

TABLE = 28  # not a multiple of 8, to which batches are padded
IDS: Any = {"vocab_size": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
GPT: Any = {**IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": TABLE}
BLOCKS: Any = {**IDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BOTH: Any = {
    **{**IDS, "d_model": 32, "decoder_start_token_id": 0, "forced_eos_token_id": None},
    **{"encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 48},
    **{"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 48},
}
XGLM: Any = {**IDS, "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48}
LED: Any = {"max_encoder_position_embeddings": 32, "max_decoder_position_embeddings": TABLE, "attention_window": 8}
ROTARY: Any = {**GPT, "rotary_dim": 4}

FAMILIES: dict[str, tuple[Callable[[], PreTrainedModel], PositionLimits]] = {
    "GPT-2": (lambda: GPT2LMHeadModel(GPT2Config(**GPT)), PositionLimits(TABLE, TABLE)),
    "GPTBigCode": (lambda: GPTBigCodeForCausalLM(GPTBigCodeConfig(**GPT)), PositionLimits(TABLE, TABLE)),
    "GPT-J": (lambda: GPTJForCausalLM(GPTJConfig(**ROTARY)), PositionLimits(TABLE, TABLE)),
    "CodeGen": (lambda: CodeGenForCausalLM(CodeGenConfig(**ROTARY)), PositionLimits(TABLE, TABLE)),
    "CTRL": (lambda: CTRLLMHeadModel(CTRLConfig(**GPT, dff=48)), PositionLimits(TABLE, TABLE)),
    "GPT-Neo": (
        lambda: GPTNeoForCausalLM(
            GPTNeoConfig(
                **IDS,
                hidden_size=32,
                num_layers=2,
                num_heads=4,
                attention_types=[[["global", "local"], 1]],
                max_position_embeddings=TABLE,
            )
        ),
        PositionLimits(TABLE, TABLE),
    ),
    "OPT": (
        lambda: OPTForCausalLM(OPTConfig(**BLOCKS, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=TABLE)),
        PositionLimits(TABLE, TABLE),
    ),
    "BioGPT": (
        lambda: BioGptForCausalLM(BioGptConfig(**BLOCKS, max_position_embeddings=TABLE)),
        PositionLimits(TABLE, TABLE),
    ),
    "RoBERTa": (
        lambda: RobertaForCausalLM(RobertaConfig(**BLOCKS, is_decoder=True, max_position_embeddings=TABLE + 2)),
        PositionLimits(TABLE, TABLE),
    ),
    "MPT": (
        lambda: MptForCausalLM(MptConfig(**IDS, d_model=32, n_heads=4, n_layers=2, max_seq_len=TABLE)),
        PositionLimits(TABLE, TABLE),
    ),
    "BART": (
        lambda: BartForConditionalGeneration(BartConfig(**BOTH, max_position_embeddings=TABLE)),
        PositionLimits(TABLE, TABLE),
    ),
    "Pegasus": (
        lambda: PegasusForConditionalGeneration(PegasusConfig(**BOTH, max_position_embeddings=TABLE)),
        PositionLimits(TABLE, TABLE),
    ),
    "Marian": (
        lambda: MarianMTModel(MarianConfig(**BOTH, max_position_embeddings=TABLE, decoder_vocab_size=64)),
        PositionLimits(TABLE, TABLE),
    ),
    "LED": (lambda: LEDForConditionalGeneration(LEDConfig(**BOTH, **LED)), PositionLimits(32, TABLE)),
    "Llama": (lambda: LlamaForCausalLM(LlamaConfig(**BLOCKS, max_position_embeddings=TABLE)), PositionLimits()),
    "Bloom": (lambda: BloomForCausalLM(BloomConfig(**IDS, hidden_size=32, n_layer=2, n_head=4)), PositionLimits()),
    "XGLM": (lambda: XGLMForCausalLM(XGLMConfig(**XGLM, max_position_embeddings=TABLE)), PositionLimits()),
    "M2M-100": (
        lambda: M2M100ForConditionalGeneration(M2M100Config(**BOTH, max_position_embeddings=TABLE)),
        PositionLimits(),
    ),
    "T5": (
        lambda: T5ForConditionalGeneration(
            T5Config(**IDS, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, decoder_start_token_id=0)  # type: ignore[call-arg]
        ),
        PositionLimits(),
    ),
}
TABLES = [family for family, (_, positions) in FAMILIES.items() if positions != PositionLimits()]
LONG = " ".join(f"w{number}" for number in range(60))


def build(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = FAMILIES[family][0]()
    model.eval()
    return model


def runs(model: PreTrainedModel, read: int, written: int) -> bool:
    """Return whether the model accepts a row of these lengths."""
    ids = torch.randint(3, 60, (1, read))
    labels = torch.randint(3, 60, (1, written)) if model.config.is_encoder_decoder else ids
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_the_limit_is_the_largest_length_that_the_model_accepts(family: str) -> None:
    model, expected = build(family), FAMILIES[family][1]
    assert get_position_limits(model) == expected
    with torch.device("meta"):
        assert get_position_limits(FAMILIES[family][0]()) == expected
    for read, written in [(expected.input_tokens, 8), (8, expected.output_tokens)]:
        if UNBOUNDED in (read, written):
            assert runs(model, 40, 40)
        elif model.config.is_encoder_decoder:
            assert runs(model, read, written)
            assert not runs(model, read + (read > 8), written + (written > 8))
        else:
            assert runs(model, expected.input_tokens, expected.input_tokens)
            assert not runs(model, expected.input_tokens + 1, expected.input_tokens + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_and_completions_stay_within_the_table(family: str, model_folder: Path) -> None:
    model, tokenizer = build(family), load_tokenizer(model_folder)
    encoder, positions = bool(model.config.is_encoder_decoder), get_position_limits(model)
    rows: list[Row] = [PromptRow(LONG, "w1 w2"), PromptRow("w1", LONG), PromptRow("w3", "w4")]
    tokens = tokenise_rows(rows, tokenizer, max_length=positions.row_tokens or TABLE, encoder=encoder)
    batch = Collator(1, positions)(tokens.examples)
    assert batch["input_ids"].shape[1] == (32 if positions == PositionLimits() or family == "LED" else TABLE)
    result = evaluate(model, tokenizer, rows, tokens, batch_size=3, max_new_tokens=40, max_prompt_length=TABLE)
    assert result.rouge is not None
    for new in (1, TABLE - 1, TABLE, 100):
        assert len(generate_completions(model, tokenizer, [LONG, "w1"], max_new_tokens=new)) == 2


@pytest.mark.parametrize("method", ["full", "prefix"])
def test_a_run_refuses_rows_beyond_the_models_positions(method: Method, model_folder: Path, tmp_path: Path) -> None:
    most = 44 if method == "full" else 24  # prefix tuning adds 20 tokens in front
    folder = tmp_path / "model"
    GPT2LMHeadModel(GPT2Config(**{**GPT, "n_positions": 44})).save_pretrained(folder)
    load_tokenizer(model_folder).save_pretrained(folder)

    def run(max_length: int) -> None:
        settings = Hyperparameters(epochs=1, batch_size=2, max_length=max_length, max_new_tokens=48, sample_prompt=LONG)
        rows: list[Row] = [TextRow(LONG), PromptRow(LONG, LONG), PromptRow(LONG, "w1"), PromptRow("w1", "w2")]
        fine_tune(model_folder=folder, rows=rows, hyperparameters=settings, method=method, folder=tmp_path / "run")

    with pytest.raises(MaxLengthExceeded, match=f"given {most + 1}, but the model has positions for {most} tokens"):
        run(most + 1)
    run(most)
