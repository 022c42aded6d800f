"""`/datasets`: validation, storage of equal content once, preview, and deletion."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from runtime.settings import Settings
from store.database import Database
from store.repositories.datasets import DatasetRepository
from store.repositories.jobs import JobRepository
from store.stored_rows import name_blob
from store.tables import Dataset
from tests.keys import bearer

GOOD = b'{"prompt": "2 + 2 =", "completion": " 4"}\n'
MODEL = "SmolLM2-135M-Instruct"


def files(settings: Settings) -> list[str]:
    """Return all files in the datasets' folder."""
    return sorted(str(path.relative_to(settings.datasets_dir)) for path in settings.datasets_dir.rglob("*.*"))


@contextmanager
def service(settings: Settings, key: str, **changed: Any) -> Iterator[TestClient]:
    """A client of the service with other limits."""
    with TestClient(create_app(settings.model_copy(update=changed)), headers=bearer(key)) as client:
        yield client


def in_background(call: Callable[[], Any]) -> tuple[Thread, list[Any]]:
    """Start a call in a thread; return the thread and the list that receives the response."""
    answers: list[Any] = []
    thread = Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_an_upload_is_stored_byte_for_byte_under_its_digest(
    upload: Any, client: TestClient, settings: Settings
) -> None:
    content = (
        GOOD
        + b"\n"
        + b'{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Hi"}]}\r\n'
        + b'{"text": "a"}'
    )

    response = upload(content, "../my rows.jsonl")

    assert response.status_code == 201
    dataset = response.json()
    digest = hashlib.sha256(content).hexdigest()
    assert dataset["name"] == "my rows.jsonl"
    assert (dataset["rows"], dataset["bytes"], dataset["sha256"]) == (3, len(content), digest)
    assert dataset["contents"] == {
        "forms": {"prompt": 1, "messages": 1, "text": 1},
        "characters": {"total": 13, "mean": 13 / 3, "median": 3, "max": 9},
        "ignored_fields": [],
    }
    assert settings.dataset_file(name_blob(digest)).read_bytes() == content
    assert files(settings) == [f"{name_blob(digest)}.jsonl"]
    assert client.get(response.headers["location"]).json() == dataset


def test_the_rows_may_be_the_whole_body(client: TestClient) -> None:
    headers = {"content-type": "application/x-ndjson"}
    response = client.post("/datasets", params={"name": "a\0/b.jsonl"}, content=GOOD, headers=headers)

    assert response.status_code == 201
    assert (response.json()["rows"], response.json()["name"]) == (1, "b.jsonl")


def test_an_unsupported_content_type_is_refused_with_the_supported_ones(client: TestClient) -> None:
    response = client.post("/datasets", content=GOOD, headers={"content-type": "text/plain"})

    assert response.status_code == 415
    assert "application/x-ndjson" in response.json()["detail"]


def test_a_leading_byte_order_mark_is_accepted(upload: Any, client: TestClient) -> None:
    response = upload(b"\xef\xbb\xbf" + GOOD)

    assert response.status_code == 201
    [row] = client.get(f"{response.headers['location']}/preview").json()["data"]
    assert row["texts"][0]["text"] == "2 + 2 ="


def test_ignored_fields_are_named(upload: Any) -> None:
    response = upload(b'{"text": "a", "id": 7}\n{"text": "b", "source": null, "prompts": []}\n')

    assert response.json()["contents"]["ignored_fields"] == ["id", "prompts", "source"]


def test_every_invalid_row_is_named_by_its_line(upload: Any, settings: Settings) -> None:
    response = upload(GOOD + b"\n{oops\n" + GOOD + b'{"messages": [{"role": "robot", "content": "x"}]}\n[1]\n')

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [
        "line 3",
        "line 5: messages[0].role",
        "line 6",
    ]
    assert files(settings) == []


@pytest.mark.parametrize(
    "row",
    [
        b"[" * 100_000,
        b'{"text": ' + b"9" * 5000 + b"}",
        b'{"text": "\xff"}',
        b"PAR1\x00\x01",
        b'{"text": "\\u0000"}',
        GOOD.decode().encode("utf-16-le"),
    ],
)
def test_a_row_that_cannot_be_read_or_stored_is_an_invalid_row(upload: Any, row: bytes) -> None:
    response = upload(GOOD + row)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"].startswith("line 2")


def test_at_most_a_hundred_invalid_rows_are_listed_and_all_are_counted(upload: Any) -> None:
    response = upload(b"oops\n" * 250)

    assert len(response.json()["errors"]) == 100
    assert "and 249 more, of which the first 100 are listed" in response.json()["detail"]


def test_an_error_stays_short_however_long_the_row_is(upload: Any) -> None:
    response = upload(b'{"' + b"x" * 100_000 + b'": 1}\n{"messages": [{"role": "' + b"y" * 100_000 + b'"}]}')

    assert response.status_code == 422
    assert len(response.content) < 2000


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_a_row_is_refused(upload: Any, settings: Settings, content: bytes) -> None:
    response = upload(content)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "file"
    assert files(settings) == []


def test_limits_of_rows_of_a_row_and_of_the_file(settings: Settings, operator_key: str) -> None:
    with service(
        settings,
        operator_key,
        max_dataset_rows=2,
        max_row_bytes=len(GOOD) - 1,
        max_upload_bytes=1000,
        max_body_bytes=10,
    ) as client:

        def refused(content: bytes) -> tuple[int, str]:
            answer = client.post("/datasets", files={"file": ("a", content)})
            return answer.status_code, answer.json()["detail"]

        assert client.post("/datasets", files={"file": ("a", GOOD * 2)}).status_code == 201
        assert refused(GOOD * 3) == (422, "file: holds more than 2 rows, the most that this service takes")
        for spaces in (1, 2, 3, 200):
            status, detail = refused(GOOD.replace(b"4", b"4" + b" " * spaces) + b"\n{oops\n")
            assert status == 422
            assert detail.startswith(f"line 1: is longer than {len(GOOD) - 1} bytes")
            assert detail.endswith("(and 1 more)")
        status, detail = refused(b"x" * 1001)
        assert status == 413
        assert "1000 bytes" in detail
        status, detail = refused(b"x" * 70_000)
        assert status == 413
    assert len(files(settings)) == 1


def test_an_upload_without_a_file_is_refused(client: TestClient) -> None:
    response = client.post("/datasets", files={"name": ("x", b"y")})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "file"


def test_equal_content_is_kept_once_until_the_last_dataset_of_it_is_deleted(
    alice: TestClient, bob: TestClient, settings: Settings
) -> None:
    first, second, third = (
        client.post("/datasets", files={"file": ("a", GOOD)}).json()["id"] for client in (alice, bob, bob)
    )
    assert len({first, second, third}) == 3
    assert len(files(settings)) == 1

    assert alice.delete(f"/datasets/{second}").status_code == 404
    for client, dataset in ((alice, first), (bob, second)):
        assert client.delete(f"/datasets/{dataset}").status_code == 204
        assert client.get(f"/datasets/{dataset}").status_code == 404
        assert client.delete(f"/datasets/{dataset}").status_code == 404
    assert [dataset["id"] for dataset in bob.get("/datasets").json()["data"]] == [third]
    assert bob.get(f"/datasets/{third}/preview").status_code == 200

    assert bob.delete(f"/datasets/{third}").status_code == 204
    assert files(settings) == []


def test_a_dataset_is_not_deleted_while_a_job_needs_it(
    client: TestClient, submit: Any, job_id: str, dataset_id: str
) -> None:
    response = client.delete(f"/datasets/{dataset_id}")
    assert response.status_code == 409
    assert job_id in response.json()["detail"]

    client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    assert client.delete(f"/datasets/{dataset_id}").status_code == 204
    assert client.get(f"/jobs/{job_id}").json()["dataset"] == dataset_id
    assert submit().status_code == 422
    assert client.post(f"/jobs/{job_id}/retry").status_code == 409


def test_deletion_and_submission_wait_for_each_other(
    client: TestClient, submit: Any, job_id: str, dataset_id: str, upload: Any, database: Database, now: Any
) -> None:
    with database.session() as session:
        datasets, jobs = DatasetRepository(session), JobRepository(session)
        other = upload(GOOD).json()["id"]
        assert datasets.lock_for_use(other) is not None
        deletion, answers = in_background(lambda: client.delete(f"/datasets/{other}"))
        deletion.join(0.3)
        assert deletion.is_alive()
        job = jobs.lock(job_id)
        assert job is not None
        job.dataset_id = other
    deletion.join()
    assert answers[0].status_code == 409

    with database.session() as session:
        datasets = DatasetRepository(session)
        dataset = datasets.lock_for_deletion(dataset_id)
        assert dataset is not None
        submission, answers = in_background(submit)
        submission.join(0.3)
        assert submission.is_alive()
        datasets.mark_deleted(dataset, at=now)
    submission.join()
    assert answers[0].status_code == 422


def test_rows_uploaded_during_the_deletion_of_their_last_dataset_are_kept(
    client: TestClient, upload: Any, database: Database, settings: Settings, now: Any
) -> None:
    first = upload(GOOD).json()
    with database.session() as session:
        datasets = DatasetRepository(session)
        datasets.lock_blob(name_blob(first["sha256"]))
        deletion, _ = in_background(lambda: client.delete(f"/datasets/{first['id']}"))
        deletion.join(0.3)
        assert deletion.is_alive()
        again = {name: first[name] for name in ("name", "format", "rows", "bytes", "sha256")}
        datasets.add(Dataset(id="dataset_again", owner="ops", blob=name_blob(first["sha256"]), created_at=now, **again))
    deletion.join()
    assert files(settings) == [f"{name_blob(first['sha256'])}.jsonl"]
    assert client.get("/datasets/dataset_again/preview").status_code == 200


def test_concurrent_equal_uploads_all_succeed(settings: Settings, client: TestClient, upload: Any) -> None:
    uploads = [in_background(lambda: upload(GOOD)) for _ in range(4)]
    for thread, _ in uploads:
        thread.join()
    assert [answers[0].status_code for _, answers in uploads] == [201] * 4
    assert len(files(settings)) == 1


def test_a_file_whose_row_cannot_be_stored_is_removed(
    upload: Any, client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.datasets.endpoints.new_id", lambda prefix: f"{prefix}_twin")
    first = upload(GOOD).json()

    assert upload(GOOD * 2).status_code == 409
    assert files(settings) == [f"{name_blob(first['sha256'])}.jsonl"]


def test_a_preview_truncates_long_texts_and_states_their_length(upload: Any, client: TestClient) -> None:
    chat = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
    location = upload(b"\n" + b'{"text": "' + b"x" * 501 + b'"}\n' + chat + GOOD).headers["location"]

    page = client.get(f"{location}/preview", params={"limit": 2}).json()

    assert page["has_more"] is True
    assert page["data"] == [
        {
            "number": 2,
            "form": "text",
            "texts": [{"field": "text", "role": None, "text": "x" * 500, "characters": 501, "cut": True}],
        },
        {
            "number": 3,
            "form": "messages",
            "texts": [
                {"field": "messages[0].content", "role": "user", "text": "Hi", "characters": 2, "cut": False},
                {"field": "messages[1].content", "role": "assistant", "text": "Hello", "characters": 5, "cut": False},
            ],
        },
    ]


@pytest.mark.parametrize("damage", ["gone", "garbled"])
def test_a_preview_of_rows_whose_file_is_missing_says_so(
    upload: Any, client: TestClient, settings: Settings, damage: str
) -> None:
    dataset = upload(GOOD).json()
    file = settings.dataset_file(name_blob(dataset["sha256"]))
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"\0" * 50)

    response = client.get(f"/datasets/{dataset['id']}/preview")
    assert response.status_code == 404
    assert "upload them again" in response.json()["detail"]

    assert upload(GOOD).status_code == 201
    assert client.get(f"/datasets/{dataset['id']}/preview").status_code == 200


def test_tokens_of_a_model_that_is_not_in_the_catalogue_are_refused(client: TestClient, dataset_id: str) -> None:
    response = client.get(f"/datasets/{dataset_id}/tokens", params={"model": "x\0"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "model"


def test_tokens_that_are_not_counted_yet_are_requested(client: TestClient, dataset_id: str) -> None:
    for _ in range(2):
        response = client.get(f"/datasets/{dataset_id}/tokens", params={"model": MODEL})
        assert response.status_code == 202
        assert response.headers["retry-after"] == "2"
        assert response.json()["model"] == MODEL


def test_a_dataset_of_another_owner_is_not_found(alice: TestClient, bob: TestClient) -> None:
    dataset = alice.post("/datasets", files={"file": ("a", GOOD)}).json()["id"]

    for path in (f"/datasets/{dataset}", f"/datasets/{dataset}/preview", f"/datasets/{dataset}/tokens?model={MODEL}"):
        assert bob.get(path).status_code == 404
    assert bob.get("/datasets").json()["data"] == []
    assert bob.post("/jobs", json={"model": MODEL, "dataset": dataset}).status_code == 422


def test_datasets_are_listed_newest_first_and_page_by_page(upload: Any, client: TestClient) -> None:
    first, second = (upload(GOOD).json()["id"] for _ in range(2))

    page = client.get("/datasets", params={"limit": 1}).json()
    assert [dataset["id"] for dataset in page["data"]] == [second]
    assert page["has_more"] is True

    page = client.get("/datasets", params={"after": second}).json()
    assert [dataset["id"] for dataset in page["data"]] == [first]


def test_a_dataset_that_does_not_exist_is_not_found(client: TestClient) -> None:
    response = client.get("/datasets/dataset_0")

    assert response.status_code == 404
    assert "dataset_0" in response.json()["detail"]
