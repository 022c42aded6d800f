"""Rows of files that were stored when fewer keys were read: the others are left out, as they were then."""

from collections.abc import Mapping

EARLIER_MESSAGE_KEYS = ("role", "content")
EARLIER_FORMS = (("messages",), ("prompt", "completion"), ("text",))


def select_earlier_keys(value: Mapping[str, object]) -> Mapping[str, object]:
    """Return what earlier versions read of a row: its form's texts, and of a message its role and content."""
    keys = next((form for form in EARLIER_FORMS if any(key in value for key in form)), ())
    selected = {key: value[key] for key in keys if key in value}
    messages = selected.get("messages")
    if isinstance(messages, list):
        selected["messages"] = [_select_message(message) for message in messages]
    return selected


def _select_message(message: object) -> object:
    if not isinstance(message, dict):
        return message
    return {key: message[key] for key in EARLIER_MESSAGE_KEYS if key in message}
