"""The pages of datasets as they are served: what each user sees, escaped, with an ETag."""

import gzip
import json
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dashboard import datasets
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.token_statistics import CountRequest, TokenStatisticsRepository
from store.stored_rows import name_blob
from store.tables import Job
from tests.api.conftest import MODEL, NOW

MIXED = (
    b'{"messages": [{"role": "user", "content": "<b>Hi</b>"}, {"role": "assistant", "content": null, "tool_calls": '
    b'[{"function": {"name": "wave", "arguments": {}}}]}], "<i>": 1}\n'
    b'{"instruction": "Add.", "input": "2 + 2", "output": "4"}\n'
)
LENGTHS = {"total": 9, "mean": 4.5, "median": 4, "p90": 5, "p99": 5, "max": 5}
COUNTS = {
    "rows": 2,
    "dropped_rows": 3,
    "dropped_lines": [4, 7],
    **dict.fromkeys(("tokens", "prompt", "completion"), LENGTHS),
    "longer_than": {"512": 1, "1024": 0},
    "histogram": [{"up_to": 4, "rows": 1}, {"up_to": 8, "rows": 1}],
}
PREVIEW: dict[str, Any] = {
    "rows": [
        {
            "line": 1,
            "examples": [
                [
                    {"text": "user: a<b", "tokens": 2, "learned": False},
                    {"text": "c</s>", "tokens": 2, "learned": True},
                ]
            ],
            "tokens": 4,
            "learned_tokens": 2,
            "is_cut": False,
            "error": None,
        },
        {"line": 2, "examples": [], "tokens": 0, "learned_tokens": 0, "is_cut": False, "error": None},
        {"line": 3, "examples": [], "tokens": 0, "learned_tokens": 0, "is_cut": False, "error": "messages: refused"},
    ]
}


def page(client: TestClient, path: str) -> str:
    response = client.get(path, headers={"accept": "text/html"})
    assert response.status_code == 200, response.text
    return response.text


def test_a_dataset_is_shown_with_its_forms_ignored_fields_and_rows(upload: Any, client: TestClient) -> None:
    dataset = upload(MIXED, "mixed.jsonl").json()

    listed, shown = page(client, "/dashboard/datasets"), page(client, f"/dashboard/datasets/{dataset['id']}")

    for markup in (listed, shown):
        assert "messages 1, instruction 1" in markup
        assert "mixed.jsonl" in markup
        assert "&lt;i&gt;" in markup
        assert "<i>" not in markup
    assert f'href="/dashboard/datasets/{dataset["id"]}"' in listed
    for text in (
        "&lt;b&gt;Hi&lt;/b&gt;",
        "&#34;name&#34;:&#34;wave&#34;",
        "Add.\n\n2 + 2",
        "No job uses this dataset.",
    ):
        assert text in shown
    assert dataset["sha256"] in shown


def test_the_container_and_the_columns_of_an_upload_are_shown(client: TestClient) -> None:
    content = gzip.compress(b"<q>,a\n1 + 1 =, 2\n")
    columns = json.dumps({"prompt": "<q>", "completion": "a"})
    uploaded = client.post("/datasets", files={"file": ("rows.csv.gz", content)}, params={"columns": columns})

    shown = page(client, f"/dashboard/datasets/{uploaded.json()['id']}")

    assert "csv in gzip" in shown
    assert "prompt from <code>&lt;q&gt;</code>" in shown


def test_token_statistics_are_shown_by_model(
    dataset_id: str, client: TestClient, database: Database, upload: Any
) -> None:
    path = f"/dashboard/datasets/{dataset_id}"
    assert "Not counted for any model yet" in page(client, path)
    assert "data-poll-seconds" not in page(client, path)

    assert client.get(f"/datasets/{dataset_id}/tokens", params={"model": MODEL}).status_code == 202
    assert "Counting since 2026-11-23 12:00:00 UTC" in page(client, path)
    assert 'data-poll-seconds="3"' in page(client, path)

    def store(**result: Any) -> None:
        with database.session() as session:
            wanted = CountRequest(dataset_id, MODEL)
            TokenStatisticsRepository(session).put_preview(wanted, PREVIEW)
            TokenStatisticsRepository(session).put(wanted, at=NOW + timedelta(minutes=1), **result)

    store(counts=COUNTS)
    counted = page(client, path)
    for text in (
        f"<h3>{MODEL}</h3>",
        '<td class="figure">4.5</td>',
        "1 example longer than 512, 0 examples longer than 1024.",
    ):
        assert text in counted
    assert "Nothing is learned of 3 rows, which are left out: lines 4, 7 and others" in counted
    assert "data-poll-seconds" not in counted
    for text in ("prompt format plain, learned turns assistant", "user: a&lt;b<mark>c&lt;/s&gt;</mark>", "refused"):
        assert text in counted
    assert "Nothing of this row is learned" in counted
    store(error="no tokenizer")
    assert '<p class="error">no tokenizer</p>' in page(client, path)


def test_the_jobs_that_use_a_dataset_are_listed(
    dataset_id: str, job_id: str, client: TestClient, database: Database
) -> None:
    path = f"/dashboard/datasets/{dataset_id}"
    first = client.get(path)
    for text in (f'href="/dashboard/jobs/{job_id}"', "validating", "<td>training</td>", "data-poll-seconds"):
        assert text in first.text
    assert client.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304

    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.status, job.revision = JobStatus.CANCELLED, job.revision + 1
    over = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert over.status_code == 200
    assert "cancelled" in over.text
    assert "data-poll-seconds" not in over.text


def test_the_list_has_pages(upload: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "LISTED", 1)
    older, newer = (upload(b'{"text": "a"}', name).json()["id"] for name in ("older", "newer"))

    first = page(client, "/dashboard/datasets")
    assert newer in first
    assert f'href="/dashboard/datasets/{older}"' not in first
    assert f'href="/dashboard/datasets?after={newer}"' in first
    second = page(client, f"/dashboard/datasets?after={newer}")
    assert f'href="/dashboard/datasets/{older}"' in second
    assert "Older datasets" not in second
    assert '<a href="/dashboard/datasets">Newest datasets</a>' in second
    assert "Newest datasets" not in first
    assert "No dataset is older." in page(client, f"/dashboard/datasets?after={older}")


def test_a_user_sees_only_their_own(upload: Any, client: TestClient, alice: TestClient) -> None:
    dataset_id = upload(b'{"text": "a"}').json()["id"]
    own = alice.post("/datasets", files={"file": ("own", b'{"text": "a"}')}).json()["id"]

    listed = page(alice, "/dashboard/datasets")
    assert own in listed
    assert dataset_id not in listed
    assert "Owner" not in listed
    assert alice.get(f"/dashboard/datasets/{dataset_id}").status_code == 404
    assert "<td>alice</td>" in page(client, "/dashboard/datasets")
    assert "<dd>alice</dd>" in page(client, f"/dashboard/datasets/{own}")


def test_a_dataset_whose_rows_are_missing_says_so(upload: Any, client: TestClient, settings: Settings) -> None:
    dataset = upload(b'{"text": "a"}').json()
    settings.dataset_file(name_blob(dataset["sha256"])).unlink()
    assert "upload them again" in page(client, f"/dashboard/datasets/{dataset['id']}")
