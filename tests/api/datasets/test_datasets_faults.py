"""Uploads that are malformed, interrupted, stalled, or meet a full disk: a clear response, and no files left."""

import asyncio
import json
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message, Receive

from api.main import create_app
from runtime.settings import Settings
from tests.api.datasets.test_datasets_parquet import parquet
from tests.keys import bearer

GOOD = b'{"prompt": "2 + 2 =", "completion": " 4"}\n'
BOUNDARY = "multipart/form-data; boundary=b"


def form(content: bytes, *, name: bytes = b'name="file"; filename="a"', end: bytes = b"\r\n--b--\r\n") -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + name + b"\r\n\r\n" + content + end


def list_files(settings: Settings) -> list[str]:
    """Return the files in the datasets' folder, without its folder of incoming uploads."""
    return sorted(path.name for path in settings.datasets_dir.rglob("*") if path.name != "incoming")


def post_upload(app: FastAPI, key: str, headers: dict[str, str], receive: Receive) -> Message:
    """Return the start of the response to an upload fed by `receive`, since no Python client disconnects abruptly."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/datasets",
        "raw_path": b"/datasets",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(k.lower().encode(), v.encode()) for k, v in (bearer(key) | headers).items()],
    }
    with TestClient(app):  # which starts and ends the application
        asyncio.run(app(scope, receive, send))
    return sent[0]


# Faults of a JSON row, a file of rows, or the form around it. Each takes a random generator.
ROWS: list[Callable[[random.Random], bytes]] = [
    lambda dice: dice.randbytes(dice.randrange(1, 2000)).replace(b"\n", b"") + b"\xff",
    lambda dice: b"[" * dice.randrange(1, 100_000),
    lambda dice: b'{"text": ' * dice.randrange(1, 20_000),
    lambda dice: b'{"text": ' + b"[" * (depth := dice.randrange(1, 2000)) + b"]" * depth + b"}",
    lambda dice: b'{"text": ' + b"9" * dice.randrange(1, 10_000) + b"}",
    lambda dice: b'{"text": 1e' + b"9" * dice.randrange(1, 50) + b"}",
    lambda dice: b'{"text": "\\ud%03x"}' % dice.randrange(0x800, 0xFFF),
    lambda dice: b'{"text": "a\\u0000b"}',
    lambda dice: b'{"text": "a\0b"}',
    lambda dice: b'{"prompt": ' + dice.choice((b"null", b"NaN", b"[]", b"{}", b"true", b"-1", b'""')) + b"}",
    lambda dice: b'{"\\ud800' + b"k" * dice.randrange(10_000) + b'": 1}',
    lambda dice: json.dumps({"messages": dice.choice(([], {}, [1], [[]], [{}], [{"role": [[]]}], "x"))}).encode(),
    lambda dice: b'{"messages": [{"role": "user", "content": "x"}' + b', {"role": "user"}' * dice.randrange(99) + b"]}",
    lambda dice: json.dumps({"conversations": dice.choice(([], {}, [1], [{"from": "x"}], [{"from": []}]))}).encode(),
    lambda dice: json.dumps({"instruction": dice.choice((1, None, [], "a")), "output": ""}).encode(),
    lambda dice: GOOD.rstrip()[:-1] + b', "%s": 1}' % dice.choice((b"weight", b"loss_weight", b"tools", b"images")),
    lambda dice: b"\xef\xbb\xbf" * dice.randrange(2, 5) + GOOD,
    lambda dice: GOOD.decode().encode(dice.choice(("utf-16", "utf-32", "utf-16-be", "utf-7"))) + b"\0",
    lambda dice: b"x" * dice.randrange(70_000, 300_000),
    lambda dice: GOOD[: dice.randrange(1, len(GOOD) - 2)],
    lambda dice: b"PAR1" + dice.randbytes(dice.randrange(200)),
    lambda dice: b"PAR1" + dice.randbytes(dice.randrange(200)) + dice.randbytes(3) + b"\xffPAR1",
    lambda dice: parquet({"text": ["a"]})[: -dice.randrange(1, 60)],
]
FORMS: list[Callable[[random.Random, bytes], tuple[str, bytes]]] = [
    lambda dice, row: (BOUNDARY, form(row)),
    lambda dice, row: ("application/x-ndjson", row),
    lambda dice, row: (BOUNDARY, form(GOOD)[: -dice.randrange(5, 60)]),
    lambda dice, row: (BOUNDARY, form(row, end=b"")),
    lambda dice, row: (BOUNDARY, form(GOOD, name=dice.choice((b"", b'name="files"', b"name=", b"\xff" * 5000)))),
    lambda dice, row: (BOUNDARY, form(b"", name=b"x" * 10, end=b"\r\n") * dice.randrange(21, 50) + form(GOOD)),
    lambda dice, row: (BOUNDARY, form(GOOD, end=b"\r\n") + form(GOOD)),
    lambda dice, row: (BOUNDARY.replace("=b", dice.choice(("=c", "", "=", "=" + "b" * 300))), form(GOOD)),
    lambda dice, row: (dice.choice(("", ";", "text/plain", "\xff", "multipart/mixed; boundary=b")), form(GOOD)),
    lambda dice, row: (BOUNDARY, dice.randbytes(dice.randrange(3000))),
]


def test_a_thousand_malformed_uploads_are_refused_and_leave_nothing(settings: Settings, operator_key: str) -> None:
    changed = {"rate_limit_per_minute": 1_000_000, "max_row_bytes": 65_536, "max_upload_bytes": 250_000}
    dice = random.Random(11)
    seen: set[int] = set()
    with TestClient(create_app(settings.model_copy(update=changed)), headers=bearer(operator_key)) as client:
        for number in range(1000):
            row = ROWS[number % len(ROWS)](dice)
            kind, body = dice.choice(FORMS)(dice, GOOD * dice.randrange(3) + row if row[:3] != b"PAR" else row)
            response = client.post("/datasets", content=body, headers={b"content-type": kind.encode("latin-1")})
            assert 400 <= response.status_code < 500, (kind, body[:300], response.text)
            assert response.headers["content-type"] == "application/problem+json"
            seen.add(response.status_code)
    assert seen == {400, 413, 415, 422}
    assert list_files(settings) == []


@pytest.mark.parametrize("content_type", [BOUNDARY, "application/x-ndjson"])
def test_an_interrupted_upload_leaves_nothing(
    app: FastAPI, operator_key: str, settings: Settings, content_type: str
) -> None:
    messages: Iterator[Message] = iter(
        [
            {"type": "http.request", "body": form(GOOD * 50_000, end=b""), "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Message:
        return next(messages)

    start = post_upload(app, operator_key, {"content-type": content_type}, receive)

    assert start["status"] == 400
    assert list_files(settings) == []


def test_a_stalled_upload_is_aborted(
    app: FastAPI, operator_key: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.datasets.receiving.IDLE_SECONDS", 0.05)
    first = [{"type": "http.request", "body": form(GOOD, end=b""), "more_body": True}]

    async def receive() -> Message:
        if not first:
            await asyncio.sleep(3600)
        return first.pop()

    start = post_upload(app, operator_key, {"content-type": BOUNDARY}, receive)

    assert start["status"] == 408
    assert list_files(settings) == []


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Limit the files that this process and its children write, so that a write fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "content", [GOOD * 30_000, parquet({"text": ["x" * 1000] * 2000})], ids=["received", "converted"]
)
def test_a_full_disk_is_a_507_and_leaves_no_file(upload: Any, settings: Settings, content: bytes) -> None:
    with limit_file_size(2**20):
        response = upload(content)

    assert response.status_code == 507
    assert response.headers["content-type"] == "application/problem+json"
    assert list_files(settings) == []
    assert upload(content).status_code == 201


def test_uploads_left_by_a_killed_process_are_removed(upload: Any, settings: Settings) -> None:
    incoming = settings.datasets_dir / "incoming"
    for name, age_hours in (("old", 7), ("young", 1)):
        (incoming / name).mkdir(parents=True)
        (incoming / name / "received").write_bytes(b"x")
        then = time.time() - age_hours * 3600
        os.utime(incoming / name / "received", (then, then))
        os.utime(incoming / name, (then, then))

    assert upload(GOOD).status_code == 201

    assert [folder.name for folder in incoming.iterdir()] == ["young"]
