"""Parsing of conversations: `messages` in OpenAI's form, and `conversations` in ShareGPT's."""

from collections.abc import Mapping, Sequence

from greencore.dataset.keys import refuse_message_keys
from greencore.dataset.rows import Message, MessagesRow
from greencore.dataset.tool_calls import parse_function_calls, parse_tool_calls, parse_tools
from greencore.dataset.values import Place, check_characters, check_list, check_name, check_object, check_text, shown

ROLES = ("system", "developer", "user", "assistant", "tool")
SHARE_GPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}
MESSAGES_ADVICE = '; these are messages: map them with columns, {"messages": "conversations"}'
TURNS_ADVICE = '; these are ShareGPT turns: map them with columns, {"conversations": "messages"}'
MAX_MESSAGES = 10_000
MAX_PARTS = 1_000


def parse_messages(value: Mapping[str, object], line: int) -> MessagesRow:
    """Return the conversation of a row with `messages` and perhaps `tools`. Raises `InvalidRow`."""
    place = Place(line) / "messages"
    given = check_list(value.get("messages"), place, most=MAX_MESSAGES)
    messages = tuple(_parse_message(message, place[index]) for index, message in enumerate(given))
    _check_learnable(messages, place)
    return MessagesRow(messages, parse_tools(value.get("tools"), Place(line) / "tools"), line)


def parse_conversations(value: Mapping[str, object], line: int) -> MessagesRow:
    """Return the conversation of a ShareGPT row: `conversations`, perhaps `system` and `tools`. Raises `InvalidRow`."""
    place = Place(line) / "conversations"
    given = check_list(value.get("conversations"), place, most=MAX_MESSAGES)
    messages = tuple(_parse_turn(turn, place[index]) for index, turn in enumerate(given))
    system = value.get("system")
    if system is not None and system != "":
        here = Place(line) / "system"
        if messages and messages[0].role == "system":
            raise here.error("is given beside a first turn from system: give one of them")
        messages = (Message("system", check_text(system, here)), *messages)
    _check_learnable(messages, place)
    return MessagesRow(messages, parse_tools(value.get("tools"), Place(line) / "tools"), line)


def _parse_message(value: object, place: Place) -> Message:
    if not isinstance(value, dict):
        raise place.error('must be an object, {"role", "content"}')
    role = value.get("role")
    if role not in ROLES:
        advice = TURNS_ADVICE if role is None and "from" in value else ""
        raise (place / "role").error(f"must be one of {', '.join(ROLES)}, got {shown(role)}{advice}")
    refuse_message_keys(value, place)
    # Most messages have no other key, of which no place is then made.
    calls, name, call_id = value.get("tool_calls"), value.get("name"), value.get("tool_call_id")
    calls = None if calls is None else parse_tool_calls(calls, place / "tool_calls")
    if calls is not None and role != "assistant":
        raise (place / "tool_calls").error(f"belong to the assistant's messages, not to those of role {role}")
    if call_id is not None and role != "tool":
        raise (place / "tool_call_id").error(f"belongs to a tool's message, not to one of role {role}")
    return Message(
        role,
        _parse_content(value.get("content"), place / "content", may_be_empty=role == "tool" or calls is not None),
        calls,
        _parse_weight(value.get("weight"), role, place),
        None if name is None else check_name(name, place / "name"),
        None if call_id is None else check_name(call_id, place / "tool_call_id"),
    )


def _parse_turn(value: object, place: Place) -> Message:
    """Parse a turn of ShareGPT's form, in which a function is called by a turn of its own."""
    if not isinstance(value, dict):
        raise place.error('must be an object, {"from", "value"}')
    speaker = value.get("from")
    if not isinstance(speaker, str) or speaker not in SHARE_GPT_ROLES:
        advice = MESSAGES_ADVICE if speaker is None and "role" in value else ""
        raise (place / "from").error(f"must be one of {', '.join(SHARE_GPT_ROLES)}, got {shown(speaker)}{advice}")
    refuse_message_keys(value, place)
    role, here = SHARE_GPT_ROLES[speaker], place / "value"
    weight = _parse_weight(value.get("weight"), role, place)
    if speaker == "function_call":
        return Message(role, "", parse_function_calls(check_text(value.get("value"), here), here), weight)
    return Message(role, _parse_content(value.get("value"), here, may_be_empty=role == "tool"), weight=weight)


def _parse_content(value: object, place: Place, *, may_be_empty: bool) -> str:
    """Return text, or the joined texts of a list of parts."""
    if value is None and may_be_empty:
        return ""
    if isinstance(value, list):
        parts = check_list(value, place, most=MAX_PARTS)
        value = "".join(_parse_part(part, place[index]) for index, part in enumerate(parts))
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise place.error("must be text that is not empty")
    check_characters(value, place)
    return value


def _parse_part(value: object, place: Place) -> str:
    part = check_object(value, place)
    kind = part.get("type")
    if kind != "text":
        raise (place / "type").error(f"must be 'text', since only text can be learned, got {shown(kind)}")
    refuse_message_keys(part, place)
    if part.get("weight") is not None:
        raise (place / "weight").error("is not supported: give it to the message")
    text = part.get("text")
    if not isinstance(text, str):
        raise (place / "text").error("must be text")
    return text


def _parse_weight(weight: object, role: str, message: Place) -> int:
    if weight is None:
        return 1
    if isinstance(weight, bool) or not isinstance(weight, int | float) or weight not in (0, 1):
        raise (message / "weight").error("must be 0 or 1")
    if role == "assistant":
        return int(weight)
    if weight == 1:
        raise (message / "weight").error(
            f"must be 0 or absent: only the assistant's messages are learned, this one's role is {role}"
        )
    return 1  # what is never learned has one form


def _check_learnable(messages: Sequence[Message], place: Place) -> None:
    """Check that some assistant's turn answers another message and has weight 1; turns after it are only unused."""
    if not messages:
        raise place.error("must be a list with at least one message")
    answers = [message for message in messages if message.role == "assistant"]
    if not answers:
        raise place.error("has no assistant's message, which is what is learned")
    if not any(message.weight for message in answers):
        raise place.error("has weight 0 in every assistant's message, so there is nothing to learn from it")
    if not any(message.role == "assistant" and message.weight for message in messages[1:]):
        raise place.error("there is no message before the assistant's, so it answers none")
