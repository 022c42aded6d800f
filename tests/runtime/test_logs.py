"""Log lines are events with fields, and contain no secret."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api.access.keys import new_key_text
from cli.stack.embedded import LOOPBACK
from cli.stack.processes import python_environment
from greencore.host_network import find_free_port
from greencore.host_processes import kill_process_group
from runtime.redaction import MASK, Redaction
from runtime.settings import Settings

KEY = new_key_text()
SECRETS = {
    "key": KEY,
    "webhook": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "secret_key": 'it\'s "quoted" and\\slashed, ünd long enough',
    "maps_token": "maps-token-0123456789",
    "watttime_password": "wt-pass-42",
    "database_password": "pg/pass%word-7",
    "redis_password": "redis-pass-9",
    "bearer": "eyJhbGciOi.JIUzI1NiJ9",
    "session": "a-signed-session.cookie",
    "collector": "collector-token-5",
}
DATABASE = "postgresql://greentune:pg%2Fpass%25word-7@127.0.0.1:1/greentune"
REDIS = f"redis://:{SECRETS['redis_password']}@127.0.0.1:1/0"
ENVIRONMENT = {
    "GREENTUNE_SECRET_KEY": SECRETS["secret_key"],
    "GREENTUNE_ELECTRICITY_MAPS_TOKEN": SECRETS["maps_token"],
    "GREENTUNE_WATTTIME_PASSWORD": SECRETS["watttime_password"],
    "DATABASE_URL": DATABASE,
    "REDIS_URL": REDIS,
    "GREENTUNE_LOG_FORMAT": "json",
    "OTEL_EXPORTER_OTLP_HEADERS": f"x-token={SECRETS['collector']}",
}
# Logs each secret in every way that a program can log.
TELL = """
import json, logging, sys, threading, warnings
import structlog
from runtime.logs import configure_logs
from runtime.settings import get_settings

configure_logs(get_settings())
log = structlog.get_logger()
secrets = json.load(sys.stdin)
told = [*secrets.values(), get_settings().database_url, get_settings().redis_url, repr(get_settings().database_url)]
told += [f"Authorization: Bearer {secrets['bearer']}", f"Cookie: greentune_session={secrets['session']}; a=b"]

class Odd:
    def __init__(self, text): self.text = text
    def __repr__(self): return f"<Odd {self.text!r}>"

def fail(text):
    try:
        raise ValueError(text)
    except ValueError as error:
        raise RuntimeError(f"because of {text}") from error

for text in told:
    if text in (secrets["bearer"], secrets["session"]):
        continue  # nothing by themselves
    log.info(f"the message is {text}")
    log.info("fields", plain=text, nested={"list": [text, (text, {text: 1})]}, odd=Odd(text), raw=text.encode())
    for name in ("sqlalchemy.engine", "httpx", "celery", "kombu", "uvicorn.error", "celery.task"):
        logging.getLogger(name).warning("%s said %r", name, text)
    try:
        fail(text)
    except RuntimeError as error:
        log.exception("failed", error=error)
        logging.getLogger("celery").exception("a task failed")
    logging.getLogger("sqlalchemy").warning("%d is not a number", text)
    warnings.warn(text, stacklevel=1)
    thread = threading.Thread(target=fail, args=(text,))
    thread.start()
    thread.join()
headers = {"Authorization": f"Bearer {secrets['bearer']}", "cookie": f"greentune_session={secrets['session']}"}
pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
log.info("headers", headers=headers, pairs=pairs, text=str(headers), pairs_text=str(pairs), token=secrets["bearer"])
log.info("headers", body=json.dumps({"headers": json.dumps(headers)}))
fail(secrets["key"])
"""


def hidden(text: str) -> list[str]:
    """Return the secrets found in a text, plain or escaped."""
    found = []
    for name, secret in SECRETS.items():
        spellings = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1]}
        spellings |= {json.dumps(repr(secret)[1:-1])[1:-1], "pg%2Fpass%25word-7"}
        found += [name for spelling in spellings if spelling in text]
    return found


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_written_however_it_is_logged(log_format: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", TELL],
        env={**os.environ, **ENVIRONMENT, "GREENTUNE_LOG_FORMAT": log_format, "PYTHONWARNINGS": "always"},
        input=json.dumps(SECRETS),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert told.returncode == 1, "the last line of it raises"
    assert told.stdout == ""
    assert hidden(told.stderr) == []
    for said in ("the message is", "fields", "sqlalchemy.engine", "kombu", "a task failed", "thread.failed"):
        assert told.stderr.count(said) >= 10, said
    assert told.stderr.count("process.failed") == 1
    assert told.stderr.count("cannot be written: TypeError") >= 10
    assert "UserWarning" in told.stderr
    assert "Traceback" in told.stderr
    if log_format == "json":
        lines = [line for line in told.stderr.splitlines() if "cannot be written" not in line]
        assert all({"event", "level", "timestamp"} <= json.loads(line).keys() for line in lines)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://me:pa55@db/x and redis://:pa55@r:1/0", f"postgresql://me:{MASK}@db/x and redis://:{MASK}@r:1/0"),
        ("http://localhost:4318/v1?to=a@b", "http://localhost:4318/v1?to=a@b"),
        ("job_0197c1d2 ran for 3.5 s under key_0197c1d2", "job_0197c1d2 ran for 3.5 s under key_0197c1d2"),
        ("tokens: 17, basic training", "tokens: 17, basic training"),
    ],
)
def test_nothing_but_secrets_is_redacted(settings: Settings, text: str, left: str) -> None:
    assert Redaction(settings).text(text) == left


def test_figures_and_names_are_not_changed(settings: Settings) -> None:
    line: dict[str, Any] = {"event": "epoch", "loss": 1.5, "ok": True, "none": None, "zones": ["FR"], "tokens": 3}
    assert Redaction(settings)(None, "info", dict(line)) == line


def test_a_short_password_masks_no_words(settings: Settings) -> None:
    short = settings.model_copy(update={"database_url": "postgresql://u:job@h/d", "watttime_user": SecretStr("a")})
    assert Redaction(short).text("a job at postgresql://u:job@h/d") == f"a job at postgresql://u:{MASK}@h/d"


@contextmanager
def running(log: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, **python_environment(), **ENVIRONMENT, **environment},
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill_process_group(process.pid)
        process.wait()


def events(log: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_every_process_writes_json_without_secrets_even_if_its_servers_are_unreachable(tmp_path: Path) -> None:
    logs = {name: tmp_path / f"{name}.log" for name in ("api", "scheduler", "worker")}
    port = str(find_free_port(LOOPBACK))
    url = f"http://{LOOPBACK}:{port}"
    with (
        running(logs["api"], "uvicorn", "api.main:app", "--host", LOOPBACK, "--port", port),
        running(logs["scheduler"], "scheduler", GREENTUNE_TICK_SECONDS="0.1"),
        running(logs["worker"], "worker", "train"),
    ):
        wait_until(lambda: answers(url), "the API answers")
        headers = {"Authorization": f"Bearer {KEY}", "Cookie": f"greentune_session={SECRETS['session']}"}
        refused = httpx.get(f"{url}/jobs/job_1?key={KEY}", headers=headers, trust_env=False)
        assert refused.status_code == 503
        named = {"X-Request-Id": "mine-1"}
        assert httpx.get(f"{url}/nothing", headers=named, trust_env=False).status_code == 401
        wait_until(lambda: "database.unreachable" in logs["scheduler"].read_text(), "the scheduler misses its database")
        wait_until(lambda: "Cannot connect to redis" in logs["worker"].read_text(), "the worker misses its broker")

    for log in logs.values():
        assert hidden(log.read_text()) == [], log.name
        assert all({"event", "level", "timestamp"} <= event.keys() for event in events(log)), log.name
    requests = [event for event in events(logs["api"]) if event["event"] == "request"]
    assert [(event["status"], event["method"], event["route"]) for event in requests] == [
        (503, "GET", "unrouted"),
        (401, "GET", "unrouted"),
    ]
    assert requests[0]["request_id"] == refused.headers["x-request-id"]
    assert requests[1]["request_id"] == "mine-1"
    assert not any("HTTP/1.1" in event["event"] for event in events(logs["api"])), "a line for each request is enough"
