"""How a prompt is put to a model: as it stands, with the paper's markers, or as a turn of a chat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from greencore.hyperparameters import FormatName
from greencore.training.models import ModelError

_SOURCE = "⟦source⟧"


@dataclass(frozen=True)
class PromptFormat:
    """What stands before and after a source text; `templated` where that includes the model's special tokens."""

    name: FormatName
    prefix: str = ""
    suffix: str = ""
    templated: bool = False

    def around(self, source: str) -> str:
        """The text that the model is given for a source."""
        return f"{self.prefix}{source}{self.suffix}"


PLAIN = PromptFormat("plain")
TLDR = PromptFormat("tldr", suffix=" TL;DR: ")  # paper §4, for OPT and BLOOMZ
SUMMARIZE = PromptFormat("summarize", prefix="summarize: ")  # paper §4, for FLAN-T5


def prompt_format(name: FormatName, tokenizer: PreTrainedTokenizerBase) -> PromptFormat:
    """The format of that name; "chat" is what the tokenizer's chat template puts around a user's turn.

    Raises `ModelError` for a chat template that is absent or drops the turn, ValueError for an unknown name.
    """
    fixed = {form.name: form for form in (PLAIN, TLDR, SUMMARIZE)}
    if name in fixed:
        return fixed[name]
    if name != "chat":
        raise ValueError(f"there is no prompt format {name!r}: expected one of {', '.join(get_args(FormatName))}")
    prefix, found, suffix = chat_prompt([("user", _SOURCE)], tokenizer).partition(_SOURCE)
    if not found:
        raise ModelError(f"the chat template of {tokenizer.name_or_path} leaves out what the user says")
    return PromptFormat("chat", prefix, suffix, templated=True)


def chat_prompt(messages: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> str:
    """A conversation of (role, content) in the tokenizer's chat template, up to where the assistant begins.

    Raises `ModelError` for a tokenizer without a template, or whose template refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template: use rows of"
            ' {"prompt", "completion"} in another format, or a model that was made for conversations'
        )
    turns = [{"role": role, "content": content} for role, content in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise ModelError(f"the chat template of {tokenizer.name_or_path} refuses a conversation: {error}") from error
