"""Rendering of conversations by a tokenizer's chat template, with tools, tool calls and the time."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import Template, TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template  # no public function sets the clock

from greencore.dataset import MAX_SHOWN_CHARACTERS, Message
from greencore.training.models.loading import ModelError
from greencore.training.processes import recall

Messages = Sequence[Message]

RENDERING_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
CLOCK_FILE_NAME = "clock.json"
_INSTRUCTION = "⟦instruction⟧"
# names that a template may check, that none escapes, and that occur nowhere else
_CALLED, _OFFERED = "called_function_{}_", "offered_function_{}_"

# whether each template of a tokenizer renders developers
_developer_known: WeakKeyDictionary[PreTrainedTokenizerBase, dict[str, bool]] = WeakKeyDictionary()


class ConversationRefused(ModelError):
    """A template cannot render a conversation, or one of its turns cannot be learned."""


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
            reading = now() if file is None else recall(file, lambda: now().isoformat(), datetime.fromisoformat)
            self._reading = reading
        return self._reading


def render_conversation(
    messages: Messages,
    tokenizer: PreTrainedTokenizerBase,
    clock: TemplateClock | None = None,
    *,
    tools: str | None = None,
    generation_prompt: bool = True,
) -> str:
    """Render a conversation; with `generation_prompt` up to where the assistant begins.

    `tools` is the JSON text of the tools that the assistant may call. A developer's message is given to the template as
    it is, and as a system message where the template refuses or leaves out developers, since inference could not send
    it otherwise. The arguments of tool calls are given as objects, as transformers does, and the content of a turn that
    only calls tools as an empty text; where the template refuses these or leaves out the calls, as JSON text and null.
    Whether it leaves them out is determined with names of functions that occur nowhere else.

    Of several templates `tool_use` is taken where there are tools, `default` otherwise, as in transformers.
    A template that reads the clock gets the time of `clock`, by default the current time. Raises `ModelError` for a
    tokenizer without a usable template, `ConversationRefused` where the template rejects the conversation.
    """
    template = _choose_template(tokenizer, has_tools=tools is not None)
    compiled = _compile(template)
    clock = clock or TemplateClock()
    if any(message.role == "developer" for message in messages) and not _knows_developers(template, tokenizer):
        messages = [replace(each, role="system") if each.role == "developer" else each for each in messages]
    refusals: list[Exception] = []
    rendered: list[str] = []
    renamed, names = _rename_calls(messages)

    def render(given: list[dict[str, Any]]) -> str:
        return _render(compiled, tokenizer, given, clock, tools=tools, generation_prompt=generation_prompt)

    for given, probe in zip(_list_message_forms(messages), _list_message_forms(renamed), strict=True):
        try:
            rendered.append(render(given))
            shown = render(probe) if names else ""
        except RENDERING_ERRORS as error:
            refusals.append(error)
            continue
        if all(name in shown for name in names):
            return rendered[-1]
    if rendered:
        return rendered[0]
    raise ConversationRefused(
        f"the model's chat template refuses a conversation: {_shorten_error(refusals[0])}"
    ) from refusals[0]


def renders_calls(
    messages: Messages, tokenizer: PreTrainedTokenizerBase, clock: TemplateClock | None = None, *, tools: str | None
) -> bool:
    """Return whether the template renders the tool calls of the last message, by names that occur nowhere else.

    Raises the errors of `render_conversation`.
    """
    renamed, names = _rename_calls(messages)
    own = names[len(names) - len(list_function_names(messages[-1].tool_calls)) :]
    shown = render_conversation(renamed, tokenizer, clock, tools=tools, generation_prompt=False) if own else ""
    return all(name in shown for name in own)


def renders_tools(
    messages: Messages, tokenizer: PreTrainedTokenizerBase, clock: TemplateClock | None = None, *, tools: str | None
) -> bool:
    """Return whether the template renders the tools before the messages' answer, as `renders_calls` does."""
    offered = [] if tools is None else json.loads(tools)
    names = _rename_functions(offered, _OFFERED, start=0)
    shown = render_conversation(messages, tokenizer, clock, tools=json.dumps(offered)) if names else ""
    return all(name in shown for name in names)


def list_function_names(calls: str | None) -> list[str]:
    """Return the names of the functions in the JSON text of tools or tool calls."""
    return [function["name"] for function in _list_functions([] if calls is None else json.loads(calls))]


def _list_functions(calls: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the functions with a name in tools or tool calls."""
    functions = [each.get("function", each) for each in calls if isinstance(each, dict)]
    return [each for each in functions if isinstance(each, dict) and isinstance(each.get("name"), str)]


def _rename_calls(messages: Messages) -> tuple[list[Message], list[str]]:
    """Return the messages with a different name in each tool call, which occurs nowhere else, and these names."""
    renamed: list[Message] = []
    names: list[str] = []
    for message in messages:
        if message.tool_calls is None:
            renamed.append(message)
            continue
        calls = json.loads(message.tool_calls)
        names += _rename_functions(calls, _CALLED, start=len(names))
        renamed.append(replace(message, tool_calls=json.dumps(calls)))
    return renamed, names


def _rename_functions(calls: Sequence[Any], pattern: str, *, start: int) -> list[str]:
    """Give each function in tools or tool calls a name of the pattern, numbered from `start`; return the names."""
    functions = _list_functions(calls)
    for number, function in enumerate(functions, start):
        function["name"] = pattern.format(number)
    return [function["name"] for function in functions]


def _render(
    compiled: Template,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    clock: TemplateClock,
    *,
    tools: str | None = None,
    generation_prompt: bool = True,
) -> str:
    read_now = compiled.environment.globals["strftime_now"]

    def now() -> datetime:
        return datetime.fromisoformat(read_now("%Y-%m-%dT%H:%M:%S.%f"))  # type: ignore[operator]

    return compiled.render(
        **tokenizer.special_tokens_map,
        messages=messages,
        tools=None if tools is None else json.loads(tools),
        documents=None,
        add_generation_prompt=generation_prompt,
        strftime_now=lambda form: clock.read(now).strftime(form),
    )


def _list_message_forms(messages: Messages) -> Iterator[list[dict[str, Any]]]:
    """Yield the forms in which messages can be given to a template, those of tool calls in several."""
    calling = any(message.tool_calls is not None for message in messages)
    for parsed, empty in product((True, False), ("", None)) if calling else ((True, ""),):
        yield [_to_template_message(message, parsed_arguments=parsed, empty=empty) for message in messages]


def _to_template_message(message: Message, *, parsed_arguments: bool, empty: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls is not None:
        calls = json.loads(message.tool_calls)
        found["tool_calls"] = [_convert_arguments(call, parsed=parsed_arguments) for call in calls]
        found["content"] = message.content or empty
    optional = {"name": message.name, "tool_call_id": message.tool_call_id}
    return found | {key: value for key, value in optional.items() if value is not None}


def _convert_arguments(call: Any, *, parsed: bool) -> Any:
    """Return a tool call with its arguments as an object, where they are one, or as JSON text."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or "arguments" not in function:
        return call
    given = function["arguments"]
    if isinstance(given, str) and parsed:
        with suppress(ValueError):
            given = json.loads(given)
    elif not isinstance(given, str) and not parsed:
        given = json.dumps(given, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": given}}


def _knows_developers(template: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the template renders the text of a developer's message."""
    known = _developer_known.setdefault(tokenizer, {})
    if template not in known:
        asked = [{"role": "developer", "content": _INSTRUCTION}, {"role": "user", "content": "a"}]
        try:
            known[template] = _INSTRUCTION in _render(_compile(template), tokenizer, asked, TemplateClock())
        except RENDERING_ERRORS:
            known[template] = False
    return known[template]


def _choose_template(tokenizer: PreTrainedTokenizerBase, *, has_tools: bool) -> str:
    """Return the template of a conversation, of several the one that transformers takes."""
    template = tokenizer.chat_template
    if not template:
        raise ModelError(
            "the model's tokenizer has no chat template: use rows of"
            ' {"prompt", "completion"} in another format, or a model that was made for conversations'
        )
    if not isinstance(template, dict):
        return str(template)
    if has_tools and "tool_use" in template:
        return str(template["tool_use"])
    if "default" not in template:
        raise ModelError(
            f"the model's tokenizer has several chat templates ({', '.join(sorted(template))}) and none is named"
            " default: use rows of another form, or name the conversation template default"
        )
    return str(template["default"])


def _compile(template: str) -> Template:
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
