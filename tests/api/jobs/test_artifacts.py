"""Downloads of a job's result files: whole, in part, and of no other file."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.http.problems import Problem
from api.jobs.artifacts import parse_byte_range
from runtime.settings import Settings
from store.database import Database
from store.tables import Artifact, Job

DIGEST = "ab" * 32
REMOVED = datetime(2026, 12, 24, 6, 0, tzinfo=UTC)


@pytest.fixture
def link(finished_job_id: str) -> str:
    """The file `model.safetensors`, which holds b"weights"."""
    return f"/jobs/{finished_job_id}/artifacts/model.safetensors"


def record_artifact(database: Database, job_id: str, name: str) -> None:
    with database.session() as session:
        session.add(Artifact(job_id=job_id, name=name, bytes=2, sha256="ef" * 32, created_at=REMOVED))


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-4", (2, 5)),
        ("bytes=2-", (2, 7)),
        ("bytes=2-999999999999999999", (2, 7)),
        ("bytes=-3", (4, 7)),
        ("bytes=-100", (0, 7)),
        ("Bytes= 1-2 ", (1, 3)),
        ("bytes=4-2", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=--3", None),
        ("bytes=+1-2", None),
        ("bytes=1_0-", None),
        ("bytes=٣-", None),
        ("bytes=0-1,3-4", None),
        ("pages=1-2", None),
        ("bytes 0-1", None),
        (f"bytes={'9' * 5000}-", None),
        ("", None),
    ],
)
def test_a_single_byte_range_is_parsed_and_any_other_header_is_ignored(
    header: str, part: tuple[int, int] | None
) -> None:
    assert parse_byte_range(header, 7) == part


@pytest.mark.parametrize(("header", "size"), [("bytes=7-", 7), ("bytes=7-9", 7), ("bytes=-0", 7), ("bytes=0-", 0)])
def test_a_range_beyond_the_file_is_refused_with_its_size(header: str, size: int) -> None:
    with pytest.raises(Problem) as refusal:
        parse_byte_range(header, size)
    assert refusal.value.status_code == 416
    assert refusal.value.headers == {"Content-Range": f"bytes */{size}"}


def test_an_interrupted_download_is_resumed(link: str, client: TestClient) -> None:
    whole = client.get(link)
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    assert whole.headers["etag"] == f'"{DIGEST}"'

    rest = client.get(link, headers={"Range": "bytes=3-", "If-Range": whole.headers["etag"]})

    assert rest.status_code == 206
    assert rest.content == b"ghts"
    assert rest.headers["content-range"] == "bytes 3-6/7"
    assert rest.headers["etag"] == whole.headers["etag"]


def test_a_file_that_the_client_has_is_not_sent_again(link: str, client: TestClient) -> None:
    held = client.get(link, headers={"If-None-Match": f'"other", "{DIGEST}"'})
    assert (held.status_code, held.content) == (304, b"")
    assert client.get(link, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("header", ["bytes=5-1", "pages=1-2", "bytes=0-1,3-4", "nonsense"])
def test_a_malformed_range_is_ignored(link: str, client: TestClient, header: str) -> None:
    response = client.get(link, headers={"Range": header})
    assert (response.status_code, response.content) == (200, b"weights")


def test_if_range_with_another_etag_sends_the_whole_file(link: str, client: TestClient) -> None:
    response = client.get(link, headers={"Range": "bytes=3-", "If-Range": '"another"'})
    assert (response.status_code, response.content) == (200, b"weights")


def test_a_range_beyond_the_file_is_a_problem_with_its_size(link: str, client: TestClient) -> None:
    response = client.get(link, headers={"Range": "bytes=7-"})
    assert response.status_code == 416
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["content-range"] == "bytes */7"
    assert "7 bytes" in response.json()["detail"]


def test_a_nested_file_is_downloaded_under_its_own_name(
    finished_job_id: str, client: TestClient, database: Database, settings: Settings
) -> None:
    name = 'adapter/b"; filename=evil ü.json'
    file = settings.artifact_file(finished_job_id, name)
    file.parent.mkdir()
    file.write_text("{}")
    record_artifact(database, finished_job_id, name)
    listed = client.get(f"/jobs/{finished_job_id}/artifacts").json()["data"]
    [link] = [artifact["link"] for artifact in listed if artifact["name"] == name]

    response = client.get(link)

    assert response.content == b"{}"
    assert response.headers["content-disposition"].startswith(
        "attachment; filename*=utf-8''b%22%3B%20filename%3Devil%20%C3%BC"
    )


def replace_file(file: Path, outside: Path, how: str) -> None:
    file.parent.mkdir(exist_ok=True)
    if how == "link":
        file.symlink_to(outside)
    elif how == "folder link":
        file.parent.rmdir()
        file.parent.symlink_to(outside.parent)
    elif how == "folder":
        file.mkdir()
    else:
        os.mkfifo(file)


@pytest.mark.parametrize("how", ["link", "folder link", "folder", "pipe"])
def test_a_recorded_name_outside_the_jobs_folder_is_not_served(
    finished_job_id: str, client: TestClient, database: Database, settings: Settings, tmp_path: Path, how: str
) -> None:
    (tmp_path / "secret").write_text("a key")
    replace_file(settings.artifact_file(finished_job_id, "sub/secret"), tmp_path / "secret", how)
    record_artifact(database, finished_job_id, "sub/secret")

    response = client.get(f"/jobs/{finished_job_id}/artifacts/sub/secret")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "name", ["..%2fmodel.safetensors", "%2fetc%2fpasswd", "a%5cb", "%2e%2e", "", "model.safetensors%2f", "x" * 3000]
)
def test_a_name_that_is_not_recorded_is_not_found(finished_job_id: str, client: TestClient, name: str) -> None:
    response = client.get(f"/jobs/{finished_job_id}/artifacts/{name}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_a_name_with_nul_is_a_client_error(finished_job_id: str, client: TestClient) -> None:
    assert client.get(f"/jobs/{finished_job_id}/artifacts/a%00b").status_code == 422


def test_a_file_that_retention_has_removed_is_answered_410_with_the_reason(
    finished_job_id: str, link: str, client: TestClient, database: Database, settings: Settings
) -> None:
    settings.artifact_file(finished_job_id, "model.safetensors").unlink()
    assert client.get(link).status_code == 404
    with database.session() as session:
        session.get_one(Job, finished_job_id).files_removed_at = REMOVED

    response = client.get(link)

    assert response.status_code == 410
    assert response.headers["content-type"] == "application/problem+json"
    assert "2026-12-24T06:00:00+00:00" in response.json()["detail"]


def test_openapi_declares_every_response_of_a_download(client: TestClient) -> None:
    operation: dict[str, Any] = client.get("/openapi.json").json()["paths"]["/jobs/{job_id}/artifacts/{name}"]["get"]
    assert {"200", "206", "404", "410", "416"} <= set(operation["responses"])
    assert {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"} >= {
        "Range",
        "If-Range",
    }
