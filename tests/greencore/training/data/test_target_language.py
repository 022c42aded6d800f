"""A multilingual model's target includes its language code, in training, evaluation and the saved result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from greencore.dataset import PromptRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.data.target_language import get_target_language_settings
from greencore.training.data.tokenisation import Collator, tokenise_rows
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.run import fine_tune

pytestmark = pytest.mark.fault(number=9)

PIECES = ["▁hello", "▁world", "▁salut", "▁lume", "▁", "<", ">", "/", "s"]
VOCABULARY = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -2.0) for piece in PIECES)]
PAIRS = {
    "<s>": 0,
    "<pad>": 1,
    "</s>": 2,
    "<unk>": 3,
    **{piece: 4 + place for place, piece in enumerate("▁helowrdsautm")},
}
SIZES: Any = {
    **{"d_model": 16, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 64},
    **{"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16},
    **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16},
}
UNDROPPED: Any = {**SIZES, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
ROWS: list[Row] = [PromptRow("hello world", "salut lume"), PromptRow("hello", "salut"), PromptRow("world", "lume")]


def mbart(target: str | None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, str]:
    tokenizer = MBartTokenizer(vocab=list(VOCABULARY), src_lang="en_XX", tgt_lang=target)
    start = tokenizer.get_vocab()["ro_RO"]
    return (
        tokenizer,
        MBartForConditionalGeneration(
            MBartConfig(vocab_size=len(tokenizer), decoder_start_token_id=start, forced_eos_token_id=2, **SIZES)
        ),
        "ro_RO",
    )


def mbart_50(target: str | None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, str]:
    tokenizer = MBart50Tokenizer(vocab=list(VOCABULARY), src_lang="en_XX", tgt_lang=target)
    first = tokenizer.convert_tokens_to_ids("ro_RO")
    model = MBartForConditionalGeneration(MBartConfig(vocab_size=len(tokenizer), decoder_start_token_id=2, **SIZES))
    model.generation_config.forced_bos_token_id = first
    return tokenizer, model, "ro_RO"


def nllb(target: str | None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, str]:
    tokenizer = NllbTokenizer(vocab=dict(PAIRS), merges=[], src_lang="eng_Latn", tgt_lang=target)
    model = M2M100ForConditionalGeneration(
        M2M100Config(vocab_size=len(tokenizer), decoder_start_token_id=2, **UNDROPPED)
    )
    model.generation_config.forced_bos_token_id = tokenizer.convert_tokens_to_ids("ron_Latn")
    return tokenizer, model, "ron_Latn"


FAMILIES: dict[str, Callable[[str | None], tuple[PreTrainedTokenizerBase, PreTrainedModel, str]]] = {
    "mBART": mbart,
    "mBART-50": mbart_50,
    "NLLB": nllb,
}


def saved(family: str, folder: Path, *, target: str | None = None) -> Path:
    torch.manual_seed(0)
    tokenizer, model, _ = FAMILIES[family](target)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_the_tokenizers_encoding_of_its_source_and_target(family: str, named: bool, tmp_path: Path) -> None:
    language = FAMILIES[family](None)[2]
    folder = saved(family, tmp_path / "model", target=language if named else None)
    tokenizer: Any = load_tokenizer(folder)
    assert tokenizer.tgt_lang == language  # from the tokenizer or the model's configuration
    code = tokenizer.convert_tokens_to_ids(language)
    tokens = tokenise_rows(ROWS, tokenizer, max_length=64, encoder=True)
    for row, example in zip(ROWS, tokens.examples, strict=True):
        assert isinstance(row, PromptRow)
        assert list(example.input_ids) == tokenizer(row.prompt)["input_ids"]
        assert list(example.labels) == tokenizer(text_target=row.completion)["input_ids"]
        assert example.labels.count(code) == example.labels.count(2) == 1
    [spelled] = tokenise_rows(
        [PromptRow("a </s>", f"salut</s> {language}")], tokenizer, max_length=64, encoder=True
    ).examples
    assert spelled.labels.count(code) == spelled.labels.count(2) == spelled.input_ids.count(2) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shortened_target_keeps_its_language_code(family: str, tmp_path: Path) -> None:
    tokenizer, model = load_tokenizer(saved(family, tmp_path)), load_model(tmp_path)
    code = tokenizer.convert_tokens_to_ids(FAMILIES[family](None)[2])
    row = PromptRow("hello", "salut lume salut lume salut lume")
    for length in (4, 64):
        tokens = tokenise_rows([row], tokenizer, max_length=length, encoder=True)
        assert tokens.shortened_completions == (length == 4)
        seen: list[torch.Tensor] = []
        hook = model.get_decoder().register_forward_pre_hook(
            lambda _, __, settings, seen=seen: seen.append(settings["input_ids"]), with_kwargs=True
        )
        model(**Collator(1)(tokens.examples))
        hook.remove()
        assert seen[0][0, :2].tolist().count(code) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_evaluates_and_saves_a_model_that_begins_in_the_language(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path / "model", target="fr_XX" if family != "NLLB" else "fra_Latn")
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    french = tokenizer.convert_tokens_to_ids("fr_XX" if family != "NLLB" else "fra_Latn")
    [(setting, code)] = get_target_language_settings(model, tokenizer).items()
    assert code == french  # though the configuration begins in Romanian
    settings = Hyperparameters(epochs=1, batch_size=2, eval_share=0.3, max_length=16, max_new_tokens=6)
    result = fine_tune(model_folder=folder, rows=ROWS, hyperparameters=settings, method="full", folder=tmp_path / "run")
    assert result.artifact is not None
    assert json.loads((result.artifact / "generation_config.json").read_text())[setting] == code
    trained: Any = AutoModelForSeq2SeqLM.from_pretrained(result.artifact)
    written = trained.generate(torch.tensor([tokenizer("hello")["input_ids"]]), max_new_tokens=6)
    assert code in written[0, :2].tolist()
