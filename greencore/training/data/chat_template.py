"""Rendering of conversations by a tokenizer's chat template: the prompt, and the turn that is learned."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from jinja2 import Template, TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template  # no public function sets the clock

from greencore.dataset import MAX_SHOWN_CHARACTERS, Message
from greencore.disk import load_or_create
from greencore.training.models.loading import ModelError

Messages = Sequence[Message]

RENDERING_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
THINKING_TAG = r"(?:\w+:)?(?:think|thinking|thought|reason|reasoning)"
OPEN_THINKING_TAG = re.compile(
    rf"(?P<left>[<\[◁])(?P<name>{THINKING_TAG})(?P<right>[>\]▷])(?P<gap>\s*)\Z", re.IGNORECASE
)
PASSAGE_SEPARATOR = re.compile(
    rf"\n|[<\[◁]/?{THINKING_TAG}[>\]▷]", re.IGNORECASE
)  # text between two of them is rendered unchanged
_ANSWER = "⟦answer⟧"
CLOCK_FILE_NAME = "clock.json"


class ConversationRefused(ModelError):
    """A template cannot render a conversation, or its last turn cannot be learned."""


class TemplateClock:
    """Clock that is read once, when a template first asks for the time, and then stays fixed.

    The reading is stored in `file`, so that a run resumed on another day renders the same text; a template that never
    reads the clock writes no file. The time is local and naive, as transformers gives it to templates.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._reading: datetime | None = None

    def read(self, now: Callable[[], datetime]) -> datetime:
        """Return the stored time, or that of `now` at the first call."""
        if self._reading is None:
            file = self._file
            reading = now() if file is None else load_or_create(file, lambda: now().isoformat(), datetime.fromisoformat)
            self._reading = reading
        return self._reading


@dataclass(frozen=True)
class RenderedTurn:
    """Rendered last turn of a conversation.

    `prompt` ends where generation begins, `target` is the rendered text after it. `has_end_token` is False where the
    template ends a turn with no token, so that the end of text must follow.
    """

    prompt: str
    target: str
    has_end_token: bool


def render_conversation(
    messages: Messages,
    tokenizer: PreTrainedTokenizerBase,
    clock: TemplateClock | None = None,
    *,
    generation_prompt: bool = True,
) -> str:
    """Render a conversation; with `generation_prompt` up to where the assistant begins.

    A template that reads the clock gets the time of `clock`, by default the current time. Raises `ModelError` for a
    tokenizer without a usable template, `ConversationRefused` where the template rejects the conversation.
    """
    compiled = _compile(tokenizer)
    clock = clock or TemplateClock()
    read_now = compiled.environment.globals["strftime_now"]

    def now() -> datetime:
        return datetime.fromisoformat(read_now("%Y-%m-%dT%H:%M:%S.%f"))  # type: ignore[operator]

    try:
        return compiled.render(
            **tokenizer.special_tokens_map,
            messages=[{"role": message.role, "content": message.content} for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=generation_prompt,
            strftime_now=lambda form: clock.read(now).strftime(form),
        )
    except RENDERING_ERRORS as error:
        raise ConversationRefused(
            f"the model's chat template refuses a conversation: {_shorten_error(error)}"
        ) from error


def render_last_turn(
    messages: Messages, tokenizer: PreTrainedTokenizerBase, *, clock: TemplateClock | None = None
) -> RenderedTurn:
    """Return the rendered text of the last message after its generation prompt.

    The learned text is the rendered conversation less the rendered earlier messages with the generation prompt. It
    includes the whitespace after the token that ends the turn; where the template ends turns with no token of the
    tokenizer, trailing whitespace is removed, since the end of text replaces it. Where the generation prompt opens a
    thought that the rendered turn does not have, the learned text begins with the message's thought, or an empty one,
    and closes it.

    Raises `ConversationRefused` for a conversation of one message, and for a template whose rendering of the turn does
    not begin with the generation prompt or omits the assistant's message; and the errors of `render_conversation`.
    """
    if len(messages) < 2:
        raise ConversationRefused("there is no message before the assistant's, so it answers none")
    content, clock = messages[-1].content, clock or TemplateClock()
    given = render_conversation(messages[:-1], tokenizer, clock)
    whole = render_conversation(messages, tokenizer, clock, generation_prompt=False)
    learned = whole[len(given) :] if whole.startswith(given) else _close_thought(given, whole, content)
    if learned is None:
        raise ConversationRefused(
            "the model's chat template renders the conversation without its generation prompt, "
            "so there is no turn after that prompt that could be learned"
        )
    if not any(passage.strip() in learned for passage in PASSAGE_SEPARATOR.split(content) if passage.strip()):
        raise ConversationRefused("the model's chat template leaves out the assistant's message, or changes it")
    ended = _ends_turn(learned, content, tokenizer)
    return RenderedTurn(given, learned if ended else learned.rstrip(), ended)


def find_turn_end_token(
    messages: Messages, tokenizer: PreTrainedTokenizerBase, *, clock: TemplateClock | None = None
) -> int | None:
    """Return the id of the first token that the template puts after the last message; None without an added token.

    Generation of a model trained on turns of this template stops there.
    """
    try:
        learned = render_last_turn(
            (*messages[:-1], replace(messages[-1], content=_ANSWER)), tokenizer, clock=clock
        ).target
    except ConversationRefused:  # a template that accepts only messages in a special form
        return None
    after = learned.rpartition(_ANSWER)[2]
    ends = ((token.content, number) for number, token in tokenizer.added_tokens_decoder.items())
    found = [(after.index(end), -len(end), number) for end, number in ends if end.strip() and end in after]
    return min(found)[2] if found else None


def _compile(tokenizer: PreTrainedTokenizerBase) -> Template:
    template = tokenizer.chat_template
    if not template:
        raise ModelError(
            "the model's tokenizer has no chat template: use rows of"
            ' {"prompt", "completion"} in another format, or a model that was made for conversations'
        )
    if isinstance(template, dict):
        if "default" not in template:
            raise ModelError(
                f"the model's tokenizer has several chat templates ({', '.join(sorted(template))}) and none is named"
                " default: use rows of another form, or name the conversation template default"
            )
        template = template["default"]
    try:
        compiled: Template = _compile_jinja_template(template)
    except TemplateError as error:
        raise ModelError(f"the model's chat template cannot be read: {_shorten_error(error)}") from error
    return compiled


def _shorten_error(error: Exception) -> str:
    """Return an error's text in one short line, since a template may put a whole message in it."""
    text = " ".join(str(error).split())
    shown = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shown)


def _close_thought(given: str, whole: str, content: str) -> str | None:
    """Return the text after a prompt that ends with an opened thought; None where it cannot be determined."""
    opened = OPEN_THINKING_TAG.search(given)
    if opened is None or not whole.startswith(given[: opened.start()]):
        return None
    gap = opened["gap"]
    opening = f"{opened['left']}{opened['name']}{opened['right']}"
    closing = f"{opened['left']}/{opened['name']}{opened['right']}"
    rest = whole[opened.start() :]
    if closing in rest:
        rest = rest.lstrip().removeprefix(opening)
        return rest.lstrip("\n") if gap else rest
    thought = content.partition(closing)[0].strip().removeprefix(opening).strip() if closing in content else ""
    answer = rest.lstrip("\n") if gap else rest
    return f"{thought}{gap}{closing}{gap * 2}{answer}"


def _ends_turn(learned: str, content: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a turn ends with an added token of the tokenizer, ignoring whitespace."""
    turn, said = learned.rstrip(), content.rstrip()
    ends = tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip())
    return turn.endswith(ends) and not (said.endswith(ends) and turn.endswith(said))
