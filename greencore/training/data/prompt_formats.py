"""Prompt formats: plain, with the paper's markers, or as a user's turn in the chat template."""

from dataclasses import dataclass, field, replace
from typing import get_args

from transformers import PreTrainedTokenizerBase

from greencore.dataset import Message
from greencore.settings.value_types import FormatName
from greencore.training.data.chat_template import TemplateClock, render_conversation
from greencore.training.models.loading import ModelError

_SOURCE = "⟦source⟧"


@dataclass(frozen=True)
class PromptFormat:
    """Text before and after a prompt's source; `templated` where it includes the model's special tokens.

    `clock` is the time that chat templates read, for conversations too; None is the current time.
    """

    name: FormatName
    prefix: str = ""
    suffix: str = ""
    templated: bool = False
    clock: TemplateClock | None = field(default=None, compare=False)

    def wrap(self, source: str) -> str:
        """Return the prompt of a source text."""
        return f"{self.prefix}{source}{self.suffix}"


PLAIN = PromptFormat("plain")
TLDR = PromptFormat("tldr", suffix=" TL;DR: ")  # paper §4, for OPT and BLOOMZ
SUMMARIZE = PromptFormat("summarize", prefix="summarize: ")  # paper §4, for FLAN-T5


def resolve_prompt_format(
    name: FormatName, tokenizer: PreTrainedTokenizerBase, clock: TemplateClock | None = None
) -> PromptFormat:
    """Return the format of a name; "chat" is the text of the tokenizer's chat template around a user's turn.

    `clock` is the time that the template reads (see `TemplateClock`). Raises `ModelError` for a chat template that is
    missing or drops the turn, ValueError for an unknown name.
    """
    fixed = {form.name: form for form in (PLAIN, TLDR, SUMMARIZE)}
    if name in fixed:
        return fixed[name] if clock is None else replace(fixed[name], clock=clock)
    if name != "chat":
        raise ValueError(f"there is no prompt format {name!r}: expected one of {', '.join(get_args(FormatName))}")
    prefix, found, suffix = render_conversation([Message("user", _SOURCE)], tokenizer, clock).partition(_SOURCE)
    if not found:
        raise ModelError("the model's chat template leaves out the user's message")
    return PromptFormat("chat", prefix, suffix, templated=True, clock=clock)
