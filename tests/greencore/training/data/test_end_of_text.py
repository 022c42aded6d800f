"""Generation stops at the end tokens of tokenizer, configurations and template; the padding token may be any."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from greencore.dataset import Message, MessagesRow, PromptRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.data.end_of_text import end_token_ids, set_stop_tokens
from greencore.training.data.tokenisation import find_turn_end_token_of_rows, tokenise_rows
from greencore.training.evaluation.evaluate import evaluate, generate_completions, score_tokens
from greencore.training.methods.adapters import load_adapter, with_adapter
from greencore.training.models.delta import DELTA_FILE_NAME, apply_delta
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.run import Method, TrainingResult, fine_tune

pytestmark = pytest.mark.fault(number=5)

WORDS = 64
ROWS: list[Row] = [PromptRow(f"w{number}", f"w{number + 1} w{number + 2}") for number in range(8)]
TEMPLATE = (
    "{% for turn in messages %}{{ turn.role }} {{ turn.content }} <turn> {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def counting(folder: Path, words: Path, *, after_twelve: int, config: Any = None, generation: Any = None) -> Path:
    """Return a model that generates the next word after each word, and a given token after w10 (token 12)."""
    settings = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WORDS,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=config,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(settings)
    order = torch.arange(1, WORDS + 1) % WORDS
    order[12] = after_twelve
    with torch.no_grad():
        for weight in model.model.layers[0].parameters():
            weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(WORDS))
        head = torch.zeros(WORDS, WORDS)
        head[order, torch.arange(WORDS)] = 4.0
        model.lm_head.weight.copy_(head)
    model.generation_config.eos_token_id = generation
    model.save_pretrained(folder)
    load_tokenizer(words).save_pretrained(folder)
    return folder


def run(
    folder: Path, output: Path, rows: list[Row] = ROWS, *, method: Method = "full", **changed: Any
) -> TrainingResult:
    """Run a fine-tuning with a learning rate that changes nothing."""
    usual = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-12, "eval_share": 0.25, "max_length": 32}
    settings = Hyperparameters(**(usual | {"sample_prompt": "w8"} | changed))
    return fine_tune(model_folder=folder, rows=rows, hyperparameters=settings, method=method, folder=output)


def generated(folder: Path, *prompts: int) -> list[list[int]]:
    """Return what transformers generates after prompts of one token each."""
    saved: Any = AutoModelForCausalLM.from_pretrained(folder)
    return list(saved.generate(torch.tensor(prompts)[:, None], max_new_tokens=20, do_sample=False).tolist())


ENDS: dict[str, tuple[int, Any, Any]] = {
    "of the tokenizer": (0, 60, 60),
    "of the configuration": (20, 20, 60),
    "among the configuration's": (20, [59, 20], 60),
    "of the generation configuration": (20, 60, 20),
    "among the generation configuration's": (20, None, [60, 20]),
    "of both, beside one without an embedding": (20, [999, 20], [-1, 64]),
}


@pytest.mark.parametrize("place", ENDS)
def test_generation_stops_at_each_end_token_and_the_result_keeps_them(
    place: str, model_folder: Path, tmp_path: Path
) -> None:
    end, config, generation = ENDS[place]
    folder = counting(tmp_path / "model", model_folder, after_twelve=end, config=config, generation=generation)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert end in end_token_ids(model, tokenizer)
    for beams in (1, 3):
        assert generate_completions(model, tokenizer, ["w8", "w10", "w6 w7"], max_new_tokens=20, beams=beams) == [
            "w9 w10",
            "",
            "w8 w9 w10",
        ]
    result = run(folder, tmp_path / "run")
    assert result.sample is not None
    assert (result.sample.before, result.sample.after) == ("w9 w10", "w9 w10")
    assert result.artifact is not None
    assert generated(result.artifact, 10) == [[10, 11, 12, end]]


def test_a_model_from_a_delta_stops_as_the_full_result_does(model_folder: Path, tmp_path: Path) -> None:
    folder = counting(tmp_path / "model", model_folder, after_twelve=0, config=60, generation=60)
    result = run(folder, tmp_path / "run", result="delta")
    assert result.artifact is not None
    apply_delta(folder, result.artifact / DELTA_FILE_NAME, tmp_path / "whole")
    assert generated(tmp_path / "whole", 10) == [[10, 11, 12, 0]]


def test_generation_stops_at_the_end_of_a_turn_that_only_the_template_knows(model_folder: Path, tmp_path: Path) -> None:
    folder = counting(tmp_path / "model", model_folder, after_twelve=30, config=0, generation=0)
    tokenizer = load_tokenizer(folder)
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"]["<turn>"] = words["model"]["vocab"].pop("w28")
    (folder / "tokenizer.json").write_text(json.dumps(words))
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<turn>") == 30
    rows: list[Row] = [MessagesRow((Message("user", f"w{n}"), Message("assistant", "w1 w2"))) for n in range(8)]
    result = run(folder, tmp_path / "run", rows)
    assert result.artifact is not None
    saved: Any = AutoModelForCausalLM.from_pretrained(result.artifact)
    assert set(saved.generation_config.eos_token_id) == {0, 30}
    assert generated(result.artifact, 10) == [[10, 11, 12, 30]]


CONVERSATION: Row = MessagesRow((Message("user", "w1"), Message("assistant", "w1 w2")))
LONG: Row = MessagesRow((Message("user", "w1"), Message("assistant", "w1 w2 w3 w4 w5 " * 5)))
OF_TURNS: dict[str, tuple[list[Row], dict[str, Any], bool]] = {
    "few conversations among prompts": ([*ROWS, *ROWS, CONVERSATION, CONVERSATION], {"eval_share": 0.0}, True),
    "prompts in the chat format": (ROWS, {"prompt_format": "chat"}, True),
    "answers that are cut off": ([LONG] * 4, {"max_length": 16}, True),
    "prompts alone": (ROWS, {}, False),
}


@pytest.mark.parametrize("case", OF_TURNS)
def test_generation_stops_at_the_end_of_a_turn_wherever_a_row_is_one(
    case: str, model_folder: Path, tmp_path: Path
) -> None:
    folder = counting(tmp_path / "model", model_folder, after_twelve=30, config=0, generation=0)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["w28"]})
    tokenizer.chat_template = TEMPLATE.replace("<turn> ", "w28 {{ eos_token }} ")  # as Phi's does
    tokenizer.save_pretrained(folder)
    rows, changed, ends = OF_TURNS[case]
    result = run(folder, tmp_path / "run", rows, **changed)
    assert result.artifact is not None
    assert generated(result.artifact, 10)[0][:5] == [10, 11, 12, 30] if ends else [10, 11, 12, 30, 31]


def test_a_prefix_is_saved_with_the_end_tokens(model_folder: Path, tmp_path: Path) -> None:
    folder = counting(tmp_path / "model", model_folder, after_twelve=0, config=60, generation=60)
    artifact = run(folder, tmp_path / "run", method="prefix").artifact
    assert artifact is not None
    base = load_model(folder)
    model: Any = with_adapter("prefix", base)
    base.generation_config = GenerationConfig.from_pretrained(artifact)
    load_adapter(model, artifact)
    written = model.generate(input_ids=torch.tensor([[10]]), max_new_tokens=20, do_sample=False)
    assert written.tolist() == [[10, 11, 12, 0]]


@pytest.mark.parametrize("special", [True, False])
def test_an_answer_equal_to_its_reference_scores_100(special: bool, model_folder: Path, tmp_path: Path) -> None:
    folder = counting(tmp_path / "model", model_folder, after_twelve=30, config=0, generation=0)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens([AddedToken("w28", special=special)])
    tokenizer.chat_template = (
        "{% for turn in messages %}{{ turn.content }} {% if turn.role == 'assistant' %}w28{% endif %}{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    rows: list[Row] = [MessagesRow((Message("user", f"w{n}"), Message("assistant", "w9 w10"))) for n in (8, 8, 8, 8)]
    tokens = tokenise_rows(rows, tokenizer, max_length=32)
    model = load_model(folder)
    set_stop_tokens(model, tokenizer, find_turn_end_token_of_rows(rows, tokenizer))
    marks = evaluate(model, tokenizer, rows, tokens, batch_size=2)
    assert marks.rouge == {"rouge1": 100, "rouge2": 100, "rougeL": 100}


def padded_with(tokenizer: PreTrainedTokenizerBase, token: str) -> PreTrainedTokenizerBase:
    tokenizer.add_special_tokens({"pad_token": token})
    return tokenizer


def test_a_padding_token_without_an_embedding_is_replaced(model_folder: Path, tmp_path: Path) -> None:
    folder = counting(tmp_path / "model", model_folder, after_twelve=0, config=0, generation=0)
    model, plain = load_model(folder), load_tokenizer(folder)
    odd = padded_with(load_tokenizer(folder), "[PAD]")
    assert odd.pad_token_id == WORDS
    tokens = tokenise_rows(ROWS, plain, max_length=32)
    assert score_tokens(model, odd, tokens, batch_size=3) == score_tokens(model, plain, tokens, batch_size=3)
    prompts = ["w1", "w2 w3 w4", "w9"]
    assert generate_completions(model, odd, prompts, max_new_tokens=20) == generate_completions(
        model, plain, prompts, max_new_tokens=20
    )
    odd.save_pretrained(folder)
    result = run(folder, tmp_path / "run")
    assert result.sample is not None
    assert result.sample.after == "w9 w10"


@pytest.mark.parametrize("pad", [-1, 64, 1000])
def test_a_configured_padding_token_outside_the_vocabulary_is_replaced(
    pad: int, model_folder: Path, tmp_path: Path
) -> None:
    folder = counting(tmp_path / "model", model_folder, after_twelve=0, config=0, generation=0)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(config | {"pad_token_id": pad}))
    result = run(folder, tmp_path / "run")
    assert result.sample is not None
    assert result.sample.after == "w9 w10"
    assert result.artifact is not None
    assert generated(result.artifact, 10, 12)[0] == [10, 11, 12, 0]
