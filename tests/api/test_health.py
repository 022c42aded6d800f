"""`/livez` and `/readyz`: readiness names what is missing."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from migrations.upgrade import downgrade, expected_revision
from store.settings import Settings
from tests.keys import bearer


def ask(settings: Settings, path: str, *, key: str | None = None) -> Any:
    with TestClient(create_app(settings), headers=bearer(key) if key else None) as client:
        return client.get(path)


def test_a_service_with_everything_it_needs_is_ready(settings: Settings) -> None:
    assert ask(settings, "/readyz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("setting", "url", "part"),
    [
        ("redis_url", "redis://127.0.0.1:1/0", "redis"),
        ("database_url", "postgresql://nobody@127.0.0.1:1/none", "database"),
    ],
)
def test_a_server_that_does_not_answer_is_named(settings: Settings, setting: str, url: str, part: str) -> None:
    broken = settings.model_copy(update={setting: url})

    response = ask(broken, "/readyz")

    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [part]


def test_a_database_that_was_not_migrated_is_named_with_what_is_needed(settings: Settings) -> None:
    downgrade(settings.database_url, "base")

    response = ask(settings, "/readyz")

    assert response.status_code == 503
    assert expected_revision() in response.json()["errors"][0]["message"]


def test_a_process_lives_even_where_nothing_else_does(settings: Settings) -> None:
    alone = settings.model_copy(
        update={"redis_url": "redis://127.0.0.1:1/0", "database_url": "postgresql://nobody@127.0.0.1:1/none"}
    )

    assert ask(alone, "/livez").status_code == 200


def test_a_request_that_needs_the_database_says_when_it_is_down(settings: Settings, operator_key: str) -> None:
    broken = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})

    response = ask(broken, "/jobs", key=operator_key)

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
