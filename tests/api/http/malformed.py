"""Generators of malformed requests from a seed: bodies, uploads, headers, paths and queries."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.api.http.malformed_files import wrong_columns, wrong_file

Path = tuple[str | int, ...]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT")
# Raw texts, since `json.dumps` cannot produce them.
NUMERALS = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400, "9" * 5000, "-9223372036854775809")
STRINGS = ('"\\u0000"', '"a\\u0000b"', '"\\ud800"', '"\\udfff x"', json.dumps("x" * 70_000), '"\\u202e\\u0000"')
CONTAINERS = ("[]", "{}", "[[]]", '[{"": []}]', '{"a": {"b": [null]}}', "[" * 200 + "]" * 200)
SURPLUS = ("surplus", "\ud800", "__proto__", "", "\0", "model ", "x" * 5000, "é")
NOT_JSON = (b"", b" ", b"{", b"nul", b"{]", b"'a'", b"\x00", b"\xff\xfe", b"{}}", b"[1,]", b'{"a":}', b"\xef\xbb\xbf{")
NO_OBJECT = (b"null", b"true", b"5", b"NaN", b'"text"', b"[]", b"[{}]", b"[" * 100_000, b'{"a":' * 100_000, b"-0")
OTHER_TYPES = (b"", b"text/plain", b"application/xml", b"multipart/form-data", b"image/png; a=b", b"\xff", b"json")


@dataclass(frozen=True)
class Request:
    """A request as a server passes it on; None among `chunks` is a disconnect."""

    method: str
    path: str
    headers: Headers
    chunks: Sequence[bytes | None] = (b"",)
    query: bytes = b""

    def __str__(self) -> str:
        body = b"".join(chunk or b"" for chunk in self.chunks)
        return f"{self.method} {self.path[:200]!r} ?{self.query[:200]!r} {self.headers} {body[:500]!r}"


def invalid_bodies(rng: random.Random, method: str, path: str, valid: dict[str, Any]) -> Iterator[Request]:
    """Yield valid bodies after one to three changes, each of which is a fault by itself, endlessly."""
    text = json.dumps(valid).encode()
    while True:
        kind = rng.randrange(10)
        content_type = JSON
        if kind == 0:
            body = rng.choice(NOT_JSON + NO_OBJECT)
        elif kind == 1:
            body = text[: rng.randrange(len(text))]
        elif kind == 2:
            at = rng.randrange(1, len(text))
            body = text[:at] + rng.choice((b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\x80")) + text[at:]
        elif kind == 3:
            body = json.dumps({**valid, "surplus": "é"}, ensure_ascii=False).encode("latin-1")
        elif kind == 4:
            body, content_type = text, rng.choice(OTHER_TYPES)
        elif kind == 5:
            body = text[:-1] + b"," + _twice(rng, valid).encode() + b"}"
        else:
            body = _with_faults(rng, valid, rng.randint(1, 3)).encode()
        yield Request(method, path, [(b"content-type", content_type)], _chunks(rng, body))


def invalid_uploads(rng: random.Random, path: str) -> Iterator[Request]:
    """Yield malformed forms, files and rows, endlessly."""
    while True:
        rows = _wrong_rows(rng)
        content_type = b"multipart/form-data; boundary=b"
        query = b""
        kind = rng.randrange(11)
        if kind < 3:
            body, content_type = rows, rng.choice((b"application/x-ndjson", b"application/octet-stream"))
        elif kind < 5:
            body = _form(rows)
        elif kind == 5:
            whole = _form(rng.choice((rows, b'{"text": "fine"}\n')))
            body = whole[: rng.randrange(len(whole) - 4)]
        elif kind == 6:
            disposition = rng.choice((b"", b"form-data", b"form-data; name=other", b'form-data; name="', b"\xff\x00"))
            body = _form(b'{"text": "fine"}\n', disposition)
        elif kind == 7:
            body = _form(b'{"text": "fine"}\n')
            content_type = rng.choice((*OTHER_TYPES, b"multipart/form-data;boundary="))
        elif kind == 8:
            body, content_type = wrong_file(rng)
        elif kind == 9:
            query, body = wrong_columns(rng)
            content_type = b"application/octet-stream"
        else:
            body = rng.choice((rng.randbytes(rng.randrange(2000)), _form(rows)[:-7] * 25, b"\r\n" * 500, b"--b" * 99))
        yield Request("POST", path, [(b"content-type", content_type)], _chunks(rng, body), query)


def malformed_requests(rng: random.Random, calls: Sequence[tuple[str, str, Sequence[str]]]) -> Iterator[Request]:
    """Yield `calls` (method, path template, query names) with garbage in headers, path and query, endlessly.

    Some of it is valid, such as an unknown ETag.
    """
    while True:
        method, template, names = rng.choice(calls)
        path = re.sub(r"{[^}]+}", lambda _: rng.choice(ODD_WORDS), template) if rng.random() < 0.7 else template
        pairs = [f"{name}={rng.choice(ODD_VALUES)}" for name in names if rng.random() < 0.7]
        if rng.random() < 0.2:
            pairs += [rng.choice(ODD_VALUES), "metadata[%00]=%00", "limit=1&limit=2"]
        headers = [(name, rng.choice(ODD_HEADER_VALUES)) for name in ODD_HEADERS if rng.random() < 0.3]
        if rng.random() < 0.2:
            headers.append((rng.choice(IDENTIFYING), rng.choice((*ODD_HEADER_VALUES, *ODD_CREDENTIALS))))
        chunks = [b"{}"] if rng.random() < 0.5 else [b"{", None]
        yield Request(method, path, headers, chunks, "&".join(pairs).encode())


ODD_WORDS = (
    "\0",
    "a\0b",
    "x" * 20_000,
    "..",
    "../../etc/passwd",
    "\ufffd",
    "\N{PILE OF POO}",
    "-1",
    "9223372036854775808",
    "18446744073709551616",
    "%",
    "%00",
    "{}",
    "' OR 1=1 --",
    " ",
    "\r\n",
    "job_0197c1d2e3f47a5b8c9d0e1f2a3b4c5d",
)
ODD_VALUES = (
    *("", "%00", "a%00b", "%FF", "%ED%A0%80", "-1", "0", "-0", "1e400", "NaN", "Infinity", "1.5", "true", "null", "[]"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 5000, "x" * 20_000, "%F0%9F%92%A9"),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "2026-13-45", "0001-01-01T00:00:00%2B14:00", "1970-01-01"),
)
ODD_HEADERS = (b"idempotency-key", b"if-none-match", b"last-event-id", b"range", b"if-range", b"accept", b"host")
IDENTIFYING = (b"authorization", b"cookie", b"x-request-id", b"content-length", b"origin", b"sec-fetch-site")
ODD_HEADER_VALUES = (
    *(b"", b"*", b'"', b'W/"', b'"x", W/"y",,', b"\xff\xfe", b"a\x00b", b"x" * 20_000, b"-1", b"9223372036854775808"),
    *(b"18446744073709551616", b"9" * 5000, b"bytes=", b"bytes=0-", b"bytes=9-1", b"bytes=-0", b"bytes=0-1,5-9"),
    *(b"bytes=99999999999999999999-", b"items=0-1", b"text/event-stream", b"text/html", b"a:b:c", b"[::1", b"[::1]:x"),
    *(b"evil.example:99999999", b"http://[", b"null", b" ", b"\t", b";", b"application/json"),
)
ODD_CREDENTIALS = (
    *(b"Bearer", b"Bearer ", b"Bearer \xff", b"Basic eA==", b"Bearer gtk_", b"Bearer gtk_" + b"x" * 5000),
    *(b"greentune_session=", b"greentune_session=x.y.z", b'greentune_session="\xff', b"=;=;=", b"a" * 9000),
)


MISFITS = (*NUMERALS, *STRINGS[:4], *CONTAINERS[3:], "true")  # wrong wherever a text, a list or a weight is expected
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT = [
    {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "b"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 1},
    {"role": "tool", "content": "a", "tool_call_id": "a"},
    {"role": "assistant", "content": "a"},
]
TURNS = [{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}]
# Valid rows of several texts, with wrong values for some places.
CONVERSATIONS: Sequence[tuple[dict[str, Any], dict[Path, Sequence[str]]]] = (
    (
        {"messages": CHAT, "tools": [CALL], "weight": None, "train": None},
        {
            ("messages",): (*MISFITS, "[" + ", ".join(['{"role": "user", "content": "a"}'] * 10_001) + "]"),
            ("messages", 0, "role"): (*MISFITS, '"robot"'),
            ("messages", 0, "content"): (*MISFITS, "null", '""'),
            ("messages", 0, "content", 0): (*MISFITS, '"a"', '{"type": "image_url", "image_url": {"url": "a"}}'),
            ("messages", 0, "content", 0, "text"): (*MISFITS, "null"),
            ("messages", 0, "name"): (*MISFITS, '""', json.dumps("n" * 300)),
            ("messages", 1, "tool_calls"): (*MISFITS, '"[]"', "[null]", json.dumps([CALL] * 129)),
            ("messages", 1, "tool_calls", 0, "id"): (*MISFITS, '""'),
            ("messages", 1, "tool_calls", 0, "type"): (*MISFITS, '"custom"'),
            ("messages", 1, "tool_calls", 0, "function"): (*MISFITS, "null", "{}", '{"name": "f"}'),
            ("messages", 1, "tool_calls", 0, "function", "name"): (*MISFITS, "null", '" "'),
            ("messages", 1, "tool_calls", 0, "function", "arguments"): (
                *(*NUMERALS, *STRINGS[:4], "null", "[]", '"[]"', '"{"', json.dumps("[" * 60_000)),
                *('{"a": NaN}', '{"a": "\\ud800"}', '{"\\u0000": 1}', '{"a": ' * 40 + "1" + "}" * 40),
            ),
            ("messages", 1, "weight"): (*MISFITS, "2", "0.5", '"1"'),
            ("messages", 2, "tool_call_id"): (*MISFITS, '""'),
            ("messages", 3): (*MISFITS, '{"role": "assistant", "content": "a", "train": false}'),
            ("tools",): (*NUMERALS, '"{"', "true", "{}", "[null]", "[{}]", json.dumps([CALL] * 129)),
            ("weight",): ("0", "1", "true", '"1"', "[1]"),
            ("train",): ("false", "true", "0"),
        },
    ),
    (
        {"conversations": TURNS, "system": "a"},
        {
            ("conversations",): (*MISFITS, "[]", "null"),
            ("conversations", 0): (*MISFITS, "null", "{}", '{"role": "user", "content": "a"}'),
            ("conversations", 0, "from"): (*MISFITS, "null", '"robot"', '["gpt"]'),
            ("conversations", 0, "value"): (*MISFITS, "null", '""'),
            ("conversations", 1, "value"): (*MISFITS, "null", '"f()"', '"[]"', '"{}"'),
            ("system",): (*MISFITS, '" "'),
        },
    ),
    (
        {"instruction": "a", "input": "b", "output": "c", "chosen": None},
        {
            ("instruction",): (*MISFITS, "null"),
            ("input",): MISFITS,
            ("output",): (*MISFITS, "null", '""'),
            ("chosen",): ('"a"', "5", "[1]"),
        },
    ),
)


def _wrong_rows(rng: random.Random) -> bytes:
    good = b'{"prompt": "2 + 2 =", "completion": " 4"}\n'
    bad = rng.choice(
        (
            rng.choice(NOT_JSON[2:] + NO_OBJECT[:7]),
            b"{}",
            b'{"prompt": "alone"}',
            b'{"text": ' + rng.choice((*NUMERALS, *CONTAINERS, '"\\ud800"', '""', "null")).encode() + b"}",
            b'{"messages": ' + rng.choice((*NUMERALS, *CONTAINERS, '[{"role": "x"}]', '"text"')).encode() + b"}",
            b'{"text": "a", "text": 5}',
            _wrong_conversation(rng),
            b'{"text": "cut',
            '{"text": "wide"}'.encode("utf-16"),
            b'{"text": "\xe9"}',
            b"PAR1" + rng.randbytes(rng.randrange(300)) + rng.choice((b"", b"PAR1")),
        )
    )
    if bad.startswith(b"PAR1"):
        return bad
    return good * rng.randrange(3) + bad + b"\n" + good * rng.randrange(3)


def _wrong_conversation(rng: random.Random) -> bytes:
    """Return a row of messages, ShareGPT or an instruction in which one place has a fault."""
    valid, faults = rng.choice(CONVERSATIONS)
    place = rng.choice(list(faults))
    return _written(valid, {place: rng.choice(faults[place])}).encode("utf-8", "surrogatepass")


def _form(content: bytes, disposition: bytes = b'form-data; name="file"; filename="a"') -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n--b--\r\n"


def _twice(rng: random.Random, valid: dict[str, Any]) -> str:
    """Repeat a field: the last one applies, and is wrong."""
    name = rng.choice(list(valid))
    return f"{json.dumps(name)}: {_wrong(rng, valid[name])}"


def _with_faults(rng: random.Random, valid: dict[str, Any], faults: int) -> str:
    """Return the body with other values in some places, or with an unknown field."""
    replaced = {}
    places = list(_places(valid))
    for place in rng.sample(places, min(faults, len(places))):
        value: Any = valid
        for part in place:
            value = value[part]
        replaced[place] = _wrong(rng, value)
    if rng.random() < 0.2:
        return _written({**valid, rng.choice(SURPLUS): 1}, replaced)
    return _written(valid, replaced)


def _places(value: Any, here: Path = ()) -> Iterator[Path]:
    if here:
        yield here
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in parts:
        yield from _places(inner, (*here, part))


def _written(value: Any, replaced: dict[Path, str], here: Path = ()) -> str:
    """Return JSON with raw text in some places; a place inside another replaced one is ignored."""
    if here in replaced:
        return replaced[here]
    if isinstance(value, dict):
        inner = (f"{json.dumps(name)}: {_written(part, replaced, (*here, name))}" for name, part in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(part, replaced, (*here, index)) for index, part in enumerate(value)) + "]"
    return json.dumps(value)


def _wrong(rng: random.Random, value: Any) -> str:
    """Return an invalid replacement of `value`, as JSON or nearly so."""
    if isinstance(value, bool):
        return rng.choice((*NUMERALS, *STRINGS, *CONTAINERS, '"maybe"', "2", "null"))
    if isinstance(value, int | float):
        return rng.choice((*NUMERALS, *STRINGS, *CONTAINERS, '"many"', '""'))
    if isinstance(value, str) and MOMENT.match(value):
        return rng.choice((*NUMERALS[:5], *STRINGS, *CONTAINERS, '"yesterday"', '"2026-02-30T00:00:00Z"'))
    if isinstance(value, str):
        return rng.choice((*NUMERALS, *STRINGS, *CONTAINERS, "true", "-0"))
    if isinstance(value, list):
        return rng.choice((*NUMERALS, *STRINGS, '{"0": {}}', "[[]]", "true", "[5]"))
    return rng.choice((*NUMERALS, *STRINGS, "[]", "[{}]", "true", "-0"))


def _chunks(rng: random.Random, body: bytes) -> list[bytes]:
    """Split a body as it may arrive: whole, or in pieces without an announced length."""
    if rng.random() < 0.7 or len(body) < 2:
        return [body]
    cuts = sorted(rng.sample(range(1, len(body)), min(3, len(body) - 1)))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
