"""Keys of rows and messages: those that a form reads, those that are refused, and those that are ignored.

Other trainers read more keys than these forms have. A key that would change what is learned is refused with its reason
where it has a value; any other is ignored, and named in the summary of an upload.
"""

from collections.abc import Iterator, Mapping

from greencore.dataset.values import Place

FORM_KEYS: Mapping[str, frozenset[str]] = {
    "messages": frozenset({"messages", "tools"}),
    "sharegpt": frozenset({"conversations", "system", "tools"}),
    "prompt": frozenset({"prompt", "completion"}),
    "instruction": frozenset({"instruction", "input", "output"}),
    "text": frozenset({"text"}),
}
# The keys by one of which a form is recognised, in the order in which they are looked for.
MARKERS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "text": ("text",),
}
MESSAGE_KEYS = frozenset({"role", "content", "tool_calls", "weight", "name", "tool_call_id"})
TURN_KEYS = frozenset({"from", "value", "weight"})
CALL_KEYS = frozenset({"id", "type", "function"})
FUNCTION_KEYS = frozenset({"name", "arguments"})
PART_KEYS = frozenset({"type", "text"})

_NO_WEIGHT = "rows have no weight of their own; in messages, each of the assistant's has a weight of 0 or 1"
_NO_MASK = "what is learned is chosen by the row's form; in messages, by a weight of 0 or 1"
_NO_PREFERENCE = "preferences are not learned: give the answer to be learned in a row of its own"
_NO_TOKENS = "rows are text, which the job's model tokenises"
_NO_MEDIA = "only text can be learned"
_NO_CONTEXT = "give it among messages"
_NO_TEMPLATE = "conversations are rendered by the model's own chat template"
REFUSED_ROW_KEYS: Mapping[str, str] = {
    **dict.fromkeys(("weight", "weights", "loss_weight", "loss_weights", "sample_weight"), _NO_WEIGHT),
    **dict.fromkeys(
        ("train", "training", "train_on_inputs", "mask", "loss_mask", "completion_mask", "assistant_masks", "segments"),
        _NO_MASK,
    ),
    **dict.fromkeys(("chosen", "rejected", "preferred_output", "non_preferred_output", "kto_tag"), _NO_PREFERENCE),
    **dict.fromkeys(("input_ids", "labels", "attention_mask"), _NO_TOKENS),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), _NO_MEDIA),
    **dict.fromkeys(("system", "system_prompt", "history", "documents"), _NO_CONTEXT),
    **dict.fromkeys(("chat_template", "chat_template_kwargs"), _NO_TEMPLATE),
    **dict.fromkeys(("functions", "function_call"), "give tools beside messages, and tool_calls in them"),
    "tools": "tools are given beside messages or conversations",
    "suffix": "text is learned after a prompt, not between two",
}
REFUSED_MESSAGE_KEYS: Mapping[str, str] = {
    **dict.fromkeys(
        ("train", "training", "train_detail", "training_detail", "loss", "loss_weight", "mask", "masked"),
        "give the assistant's messages a weight of 0 or 1",
    ),
    **dict.fromkeys(
        ("reasoning", "reasoning_content", "thinking"),
        "give thoughts in the text, as the model writes them, such as <think>…</think>",
    ),
    **dict.fromkeys(("functions", "tools"), "give tools beside the conversation"),
    **dict.fromkeys(("function_call", "function_calls"), "give tool_calls"),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), _NO_MEDIA),
    "refusal": "give it as content, which is what is learned",
}
# All keys of a row whose value is needed: a reader of columns may leave out others.
READ_KEYS = frozenset[str]().union(*FORM_KEYS.values(), REFUSED_ROW_KEYS, ("label",))


def find_form(value: Mapping[str, object]) -> str | None:
    """Return the form of a row by its keys, of which those without a value count last; None without a form's key."""
    for keys in ({key for key, inner in value.items() if inner is not None}, value.keys()):
        for form, markers in MARKERS.items():
            if not keys.isdisjoint(markers):
                return form
    return None


def refuse_row_keys(value: Mapping[str, object], form: str | None, line: int) -> None:
    """Raise `InvalidRow` for the first key of a row that changes what is learned elsewhere, and that `form` lacks."""
    known = FORM_KEYS[form] if form else frozenset()
    for key in value:
        if key in REFUSED_ROW_KEYS and key not in known and not _is_empty(value[key]):
            raise (Place(line) / key).error(f"is not supported: {REFUSED_ROW_KEYS[key]}")
    # a text may be of a class; beside an answer a label says whether it is preferred
    if form not in (None, "text") and isinstance(value.get("label"), bool):
        raise (Place(line) / "label").error(f"is not supported: {_NO_PREFERENCE}")


def explain_unread_key(key: str, value: object, *, read: frozenset[str]) -> str | None:
    """Return why a value is refused that is beside those of a row, deeper in its object; None where it is ignored.

    `read` are the keys of the row's form, which are read only from where columns say.
    """
    if key == "label" and isinstance(value, bool) and "text" not in read:
        return f"is not supported: {_NO_PREFERENCE}"
    if key not in REFUSED_ROW_KEYS or _is_empty(value):
        return None
    if key in read:
        return f"is not read here: name it for {key} in columns"
    return f"is not supported: {REFUSED_ROW_KEYS[key]}"


def refuse_message_keys(value: Mapping[str, object], place: Place) -> None:
    """Raise `InvalidRow` for the first key of a message that changes what is learned elsewhere."""
    if value.keys().isdisjoint(REFUSED_MESSAGE_KEYS):
        return
    for key in value:
        if key in REFUSED_MESSAGE_KEYS and not _is_empty(value[key]):
            raise (place / key).error(f"is not supported: {REFUSED_MESSAGE_KEYS[key]}")


def find_ignored_keys(value: Mapping[str, object]) -> set[str]:
    """Return the keys of a valid row that are not read, such as `id` or `messages[].timestamp`."""
    form = find_form(value)
    ignored = value.keys() - (FORM_KEYS[form] if form else ())
    if form == "sharegpt":
        ignored |= _unread(value, "conversations", TURN_KEYS)
    elif form == "messages":
        ignored |= _unread(value, "messages", MESSAGE_KEYS)
        for message in _objects(value, "messages"):
            if isinstance(message.get("content"), str) and "tool_calls" not in message:
                continue
            inner = _unread(message, "content", PART_KEYS) | _unread(message, "tool_calls", CALL_KEYS)
            for call in _objects(message, "tool_calls"):
                function = call.get("function")
                if isinstance(function, dict):
                    inner |= {f"tool_calls[].function.{key}" for key in function.keys() - FUNCTION_KEYS}
            ignored |= {f"messages[].{key}" for key in inner}
    return ignored


def _unread(value: Mapping[str, object], field: str, known: frozenset[str]) -> set[str]:
    return {f"{field}[].{key}" for inner in _objects(value, field) for key in inner.keys() - known}


def _objects(value: Mapping[str, object], field: str) -> Iterator[dict[str, object]]:
    """Yield the objects of a list in `value`; nothing where there is no list."""
    given = value.get(field)
    return (inner for inner in given if isinstance(inner, dict)) if isinstance(given, list) else iter(())


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {})
