"""Prompt formats of the paper and of the tokenizer's chat template."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from greencore.dataset import Message
from greencore.training.data.chat_template import render_conversation
from greencore.training.data.prompt_formats import PLAIN, SUMMARIZE, TLDR, resolve_prompt_format
from greencore.training.models.loading import ModelError, load_tokenizer

TEMPLATE = (
    "{% for turn in messages %}{% if turn.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "<{{ turn.role }}> {{ turn.content }} <end> {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture
def tokenizer(model_folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(model_folder)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_the_papers_formats() -> None:
    assert TLDR.wrap("A source.") == "A source. TL;DR: "
    assert SUMMARIZE.wrap("A source.") == "summarize: A source."
    assert PLAIN.wrap("A source.") == "A source."


def test_a_format_is_found_by_its_name(tokenizer: PreTrainedTokenizerBase) -> None:
    assert resolve_prompt_format("tldr", tokenizer) is TLDR
    assert resolve_prompt_format("summarize", tokenizer) is SUMMARIZE
    assert resolve_prompt_format("plain", tokenizer) is PLAIN
    with pytest.raises(ValueError, match="expected one of plain, tldr, summarize, chat"):
        resolve_prompt_format("question", tokenizer)  # type: ignore[arg-type]


def test_the_chat_format_is_the_template_around_a_users_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    chat = resolve_prompt_format("chat", tokenizer)
    assert chat.wrap("Hi") == render_conversation([Message("user", "Hi")], tokenizer) == "<user> Hi <end> <assistant> "
    assert (chat.prefix, chat.suffix, chat.templated) == ("<user> ", " <end> <assistant> ", True)


def test_a_chat_without_a_usable_template_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ModelError, match="refuses a conversation: no system turn"):
        render_conversation([Message("system", "Be brief."), Message("user", "Hi")], tokenizer)
    tokenizer.chat_template = "always this"
    with pytest.raises(ModelError, match="leaves out the user's message"):
        resolve_prompt_format("chat", tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="has no chat template"):
        resolve_prompt_format("chat", tokenizer)
