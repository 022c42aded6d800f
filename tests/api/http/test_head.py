"""HEAD is answered like GET, without the body."""

import json
import re
import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.describe import render_openapi
from runtime.settings import Settings
from tests.keys import bearer, new_key
from tests.server import run_server

pytestmark = pytest.mark.fault(number=26)

# Headers that differ between requests.
OF_THE_REQUEST = {"x-request-id", "ratelimit-remaining", "ratelimit-reset", "date"}
PAGES = ["/", "/dashboard/workers", "/dashboard/grid", "/dashboard/policies", "/dashboard/submit", "/docs", "/sign-in"]
STATIC = "/static/leaf.svg"


def comparable(answer: httpx.Response) -> tuple[int, dict[str, str]]:
    return answer.status_code, {name: value for name, value in answer.headers.items() if name not in OF_THE_REQUEST}


def test_every_path_that_takes_get_takes_head(app: FastAPI, settings: Settings, finished_job_id: str) -> None:
    api = json.loads(render_openapi())
    given = {"job_id": finished_job_id, "name": "model.safetensors", "zone": "FR"}
    templates = [path for path, calls in api["paths"].items() if "get" in calls]
    paths = [re.sub(r"{(\w+)}", lambda match: given.get(match[1], "x"), path) for path in templates]
    assert len(paths) > 20
    with (
        run_server(app) as url,
        httpx.Client(base_url=url, headers=bearer(new_key(settings, "ops")), timeout=10) as client,
    ):
        for path in [*paths, *PAGES, f"/dashboard/jobs/{finished_job_id}", STATIC, "/openapi.json", "/nowhere"]:
            got, head = client.get(path), client.head(path)
            assert head.content == b"", path
            if path in ("/metrics", "/audit", "/keys", "/readyz") or "text/html" in got.headers.get("content-type", ""):
                assert head.status_code == got.status_code, path
                assert head.headers["content-type"] == got.headers["content-type"], path
            else:
                assert comparable(head) == comparable(got), path


def test_head_of_an_event_stream_and_of_a_result_ends_at_once(
    app: FastAPI, settings: Settings, job_id: str, finished_job_id: str
) -> None:
    headers = bearer(new_key(settings))
    with run_server(app) as url, httpx.Client(base_url=url, headers=headers, timeout=5) as client:
        begin = time.monotonic()
        for _ in range(3):
            head = client.head(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
            assert head.status_code == 200
            assert head.headers["content-type"].startswith("text/event-stream")
        assert time.monotonic() - begin < 5
        while app.state.context.stream_limiter.open_streams and time.monotonic() - begin < 5:
            time.sleep(0.01)
        assert app.state.context.stream_limiter.open_streams == 0
        head = client.head(f"/jobs/{finished_job_id}/artifacts/model.safetensors")
        assert (head.status_code, head.headers["content-length"]) == (200, "7")
        part = {"Range": "bytes=2-4"}
        ranged = client.head(f"/jobs/{finished_job_id}/artifacts/model.safetensors", headers=part)
        assert ranged.status_code == client.get(ranged.request.url, headers=part).status_code


def test_head_honours_etags_keys_and_methods(client: TestClient, anonymous: TestClient, job_id: str) -> None:
    tag = client.get(f"/jobs/{job_id}").headers["etag"]

    assert client.head(f"/jobs/{job_id}", headers={"If-None-Match": tag}).status_code == 304
    assert client.head(f"/jobs/{job_id}").headers["etag"] == tag
    assert anonymous.head("/jobs").status_code == 401
    refused = client.head(f"/jobs/{job_id}/cancel")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert client.delete("/jobs").headers["allow"] == "GET, HEAD, POST"


def test_head_is_not_in_the_description() -> None:
    assert not [path for path, calls in json.loads(render_openapi())["paths"].items() if "head" in calls]
    assert "HEAD" in (Path(__file__).parents[3] / "docs/reference/rest.md").read_text()
