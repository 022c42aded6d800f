"""`/datasets`: rows are checked on their way to the disk, and a refused file leaves nothing there."""

import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from store.settings import Settings
from tests.keys import bearer

GOOD = b'{"prompt": "2 + 2 =", "completion": " 4"}\n'


def files(settings: Settings) -> list[str]:
    """What lies in the folder of datasets."""
    return sorted(file.name for file in settings.datasets_dir.iterdir()) if settings.datasets_dir.exists() else []


def test_an_upload_is_stored_under_its_own_id_byte_for_byte(
    upload: Any, client: TestClient, settings: Settings
) -> None:
    content = GOOD + b"\n" + b'{"messages": [{"role": "assistant", "content": "Hi"}]}\r\n' + b'{"text": "a"}'

    response = upload(content, "../my rows.jsonl")

    assert response.status_code == 201
    dataset = response.json()
    assert dataset["name"] == "my rows.jsonl"
    assert dataset["rows"] == 3
    assert dataset["bytes"] == len(content)
    assert dataset["sha256"] == hashlib.sha256(content).hexdigest()
    assert settings.dataset_file(dataset["id"]).read_bytes() == content
    assert files(settings) == [f"{dataset['id']}.jsonl"]
    assert client.get(response.headers["location"]).json() == dataset


def test_every_bad_row_is_named_by_its_line(upload: Any, settings: Settings) -> None:
    response = upload(GOOD + b"\n{oops\n" + GOOD + b'{"messages": [{"role": "robot", "content": "x"}]}\n[1]\n')

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [
        "line 3",
        "line 5: messages[0].role",
        "line 6",
    ]
    assert files(settings) == []


@pytest.mark.parametrize(
    "row", [b"[" * 100_000, b'{"text": ' + b"9" * 5000 + b"}", b'{"text": "\xff"}', b"PAR1\x00\x01"]
)
def test_a_row_that_the_json_reader_chokes_on_is_a_bad_row_like_any_other(upload: Any, row: bytes) -> None:
    response = upload(GOOD + row)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"].startswith("line 2")


def test_at_most_a_hundred_bad_rows_are_listed(upload: Any) -> None:
    response = upload(b"oops\n" * 250)

    assert len(response.json()["errors"]) == 100


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_a_row_is_refused(upload: Any, settings: Settings, content: bytes) -> None:
    response = upload(content)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "file"
    assert files(settings) == []


def test_a_file_with_too_many_rows_is_refused(settings: Settings, operator_key: str) -> None:
    strict = settings.model_copy(update={"max_dataset_rows": 2})
    with TestClient(create_app(strict), headers=bearer(operator_key)) as client:
        assert client.post("/datasets", files={"file": ("a", GOOD * 2)}).status_code == 201
        response = client.post("/datasets", files={"file": ("a", GOOD * 3)})

    assert response.status_code == 422
    assert "more than 2 rows" in response.json()["detail"]
    assert len(files(settings)) == 1


def test_an_upload_without_a_file_is_refused(client: TestClient) -> None:
    response = client.post("/datasets", data={"name": "x"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "file"


def test_a_file_whose_row_cannot_be_stored_is_taken_away_again(
    upload: Any, client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_id = upload(GOOD).json()["id"]
    monkeypatch.setattr("api.datasets.endpoints.new_id", lambda prefix: f"{prefix}_twin")
    assert upload(GOOD).status_code == 201
    settings.dataset_file("dataset_twin").unlink()

    assert upload(GOOD).status_code == 409
    assert files(settings) == [f"{dataset_id}.jsonl"]


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
