"""Fixtures: a client of the real application on a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from api.main import create_app
from greentune.client import Client
from greentune.models import Dataset
from runtime.settings import Settings
from tests.api.conftest import NOW
from tests.server import run_server


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings, clock=lambda: NOW)


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """URL of a running service."""
    with run_server(app) as url:
        yield url


@pytest.fixture
def client(url: str, operator_key: str) -> Iterator[Client]:
    """An operator's client."""
    with Client(url, operator_key, timeout=10, attempts=2) as client:
        yield client


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of two rows."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "2 + 2 =", "completion": " 4"}\n{"text": "Leaves are green."}\n')
    return file


@pytest.fixture
def dataset(client: Client, rows: Path) -> Dataset:
    return client.upload_dataset(rows)
