"""Every error is a problem, of our code and of the frameworks."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.main import create_app
from runtime.settings import Settings
from tests.keys import bearer


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"max_body_bytes": 1000}))


@pytest.fixture
def small(app: FastAPI, operator_key: str) -> Iterator[TestClient]:
    """A service that takes bodies of at most 1000 bytes, and whose unexpected errors are answered."""
    with TestClient(app, headers=bearer(operator_key), raise_server_exceptions=False) as client:
        yield client


def test_an_unknown_path_is_a_problem(small: TestClient) -> None:
    response = small.get("/nothing")

    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is nothing at /nothing",
    }


def test_a_method_that_is_not_allowed_is_a_problem_with_the_allowed_ones(small: TestClient) -> None:
    response = small.put("/jobs")

    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["allow"] == "GET, HEAD, POST"
    assert response.json()["detail"] == "/jobs does not take PUT, only GET, HEAD, POST"


def test_an_unexpected_error_is_a_problem_without_details(app: FastAPI, small: TestClient) -> None:
    @app.get("/fall")
    def fail() -> None:
        raise RuntimeError("the password is 1234")

    response = small.get("/fall")

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "1234" not in response.text


def test_a_body_whose_announced_length_is_too_large_is_a_problem(small: TestClient) -> None:
    response = small.post("/jobs", json={"model": "x" * 2000})

    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert "1000 bytes" in response.json()["detail"]


def test_a_body_found_too_large_while_it_is_read_is_a_problem(small: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    response = small.post("/jobs", content=chunks(), headers={"content-type": "application/json"})

    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


def test_a_form_that_cannot_be_read_is_a_problem(small: TestClient) -> None:
    response = small.post("/datasets", content=b"--x", headers={"content-type": "multipart/form-data"})

    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"


def test_importing_the_api_imports_no_torch_and_reads_no_settings() -> None:
    program = (
        "import sys, api.main; from runtime.settings import get_settings; "
        "assert not {'torch', 'transformers'} & set(sys.modules); assert not get_settings.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
