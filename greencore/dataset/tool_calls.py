"""Parsing of `tools` and `tool_calls` in OpenAI's form into canonical JSON text."""

from typing import Any

from greencore.dataset.values import (
    Place,
    check_list,
    check_name,
    check_object,
    decode_json,
    encode_json,
    shown,
)

MAX_TOOLS = 128
MAX_TOOL_CALLS = 128


def parse_tools(value: object, place: Place) -> str | None:
    """Return the canonical JSON text of a conversation's tools; None for no tools.

    `value` is a list of `{"type": "function", "function": {"name", …}}` or of its functions alone, or JSON text of one,
    as ShareGPT rows and Parquet files have it. What describes a tool is kept as given.
    """
    if isinstance(value, str) and value.strip():
        value = decode_json(value, place)
    if value is None or value in ("", []):
        return None
    tools = []
    for index, tool in enumerate(check_list(value, place, most=MAX_TOOLS)):
        here = place[index]
        given = dict(check_object(tool, here))
        _check_type(given, here)
        given.pop("type", None)
        if "function" not in given and "name" in given:  # a function alone
            given = {"function": given}
        function = check_object(given.get("function"), here / "function")
        check_name(function.get("name"), here / "function" / "name")
        tools.append({"type": "function", **given})
    return encode_json(tools, place)


def parse_tool_calls(value: object, place: Place) -> str | None:
    """Return the canonical JSON text of a message's tool calls; None for no calls.

    Each is `{"id", "type": "function", "function": {"name", "arguments"}}`; `id` and `type` may be absent. Arguments
    are an object, or JSON text of one, and an object in the result; absent or empty ones are `{}`.
    """
    if value is None or value == []:
        return None
    calls: list[dict[str, Any]] = []
    for index, call in enumerate(check_list(value, place, most=MAX_TOOL_CALLS)):
        here = place[index]
        given = check_object(call, here)
        _check_type(given, here)
        parsed: dict[str, Any] = {"type": "function"}
        if given.get("id") is not None:
            parsed["id"] = check_name(given["id"], here / "id")
        parsed["function"] = _parse_function(given.get("function"), here / "function")
        calls.append(parsed)
    return encode_json(calls, place)


def parse_function_calls(text: str, place: Place) -> str:
    """Return the canonical JSON text of the calls of a ShareGPT turn from `function_call`.

    `text` is JSON of one `{"name", "arguments"}`, or of a list of them.
    """
    value = decode_json(text, place)
    given = check_list(value, place, most=MAX_TOOL_CALLS) if isinstance(value, list) else [value]
    if not given:
        raise place.error("calls no function")
    calls = [{"type": "function", "function": _parse_function(call, place)} for call in given]
    return encode_json(calls, place)


def _parse_function(value: object, place: Place) -> dict[str, Any]:
    function = check_object(value, place)
    name = check_name(function.get("name"), place / "name")
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = {}  # of a function without parameters
    if isinstance(arguments, str):
        arguments = decode_json(arguments, place / "arguments")
    if not isinstance(arguments, dict):
        kind = "null" if arguments is None else type(arguments).__name__
        raise (place / "arguments").error(f"must be an object, or JSON text of one, got {kind}")
    return {"name": name, "arguments": arguments}


def _check_type(value: dict[str, Any], place: Place) -> None:
    kind = value.get("type")
    if kind is not None and kind != "function":
        raise (place / "type").error(f"must be 'function', got {shown(kind)}")
