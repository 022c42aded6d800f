"""How a prompt is put to a model: as it stands, with the paper's markers, or as a turn of a chat."""

from dataclasses import dataclass, field, replace
from typing import get_args

from transformers import PreTrainedTokenizerBase

from greencore.hyperparameters import FormatName
from greencore.training.data.chat_template import Messages, render_conversation
from greencore.training.data.template_clock import TemplateClock
from greencore.training.models.loading import ModelError

_SOURCE = "⟦source⟧"


@dataclass(frozen=True)
class PromptFormat:
    """What stands before and after a source text; `templated` where that includes the model's special tokens.

    `clock` is the time that chat templates read, of conversations as well; the current time where it is None.
    """

    name: FormatName
    prefix: str = ""
    suffix: str = ""
    templated: bool = False
    clock: TemplateClock | None = field(default=None, compare=False)

    def wrap(self, source: str) -> str:
        """The text that the model is given for a source."""
        return f"{self.prefix}{source}{self.suffix}"


PLAIN = PromptFormat("plain")
TLDR = PromptFormat("tldr", suffix=" TL;DR: ")  # paper §4, for OPT and BLOOMZ
SUMMARIZE = PromptFormat("summarize", prefix="summarize: ")  # paper §4, for FLAN-T5


def resolve_prompt_format(
    name: FormatName, tokenizer: PreTrainedTokenizerBase, clock: TemplateClock | None = None
) -> PromptFormat:
    """The format of that name; "chat" is what the tokenizer's chat template puts around a user's turn.

    `clock` is the time that the template reads, which a run keeps (see `TemplateClock`). Raises `ModelError` for a
    chat template that is absent or drops the turn, ValueError for an unknown name.
    """
    fixed = {form.name: form for form in (PLAIN, TLDR, SUMMARIZE)}
    if name in fixed:
        return fixed[name] if clock is None else replace(fixed[name], clock=clock)
    if name != "chat":
        raise ValueError(f"there is no prompt format {name!r}: expected one of {', '.join(get_args(FormatName))}")
    prefix, found, suffix = render_chat_prompt([("user", _SOURCE)], tokenizer, clock).partition(_SOURCE)
    if not found:
        raise ModelError("the model's chat template leaves out what the user says")
    return PromptFormat("chat", prefix, suffix, templated=True, clock=clock)


def render_chat_prompt(
    messages: Messages, tokenizer: PreTrainedTokenizerBase, clock: TemplateClock | None = None
) -> str:
    """A conversation of (role, content) in the tokenizer's chat template, up to where the assistant begins.

    Raises `ModelError` for a tokenizer without a template, or whose template refuses the conversation.
    """
    return render_conversation(messages, tokenizer, generation_prompt=True, clock=clock)
