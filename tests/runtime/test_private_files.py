"""Users' files are private to the service's account from their creation; existing ones from the next start."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from api.main import create_app
from runtime import private_files
from runtime.settings import Settings
from tests.keys import bearer

pytestmark = pytest.mark.fault(number=18)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Set the umask of most systems, under which others may read new files."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_an_upload_is_private_from_the_start(settings: Settings, operator_key: str) -> None:
    with TestClient(create_app(settings), headers=bearer(operator_key)) as client:
        answer = client.post("/datasets", files={"file": ("rows.jsonl", b'{"text": "Leaves are green."}\n')})
        dataset = answer.json()["id"]
        assert client.get(f"/datasets/{dataset}/preview").status_code == 200

    assert mode(settings.data_dir) == 0o700
    found = [settings.datasets_dir, *settings.datasets_dir.rglob("*")]
    assert [path for path in found if mode(path) & 0o077] == []
    assert any(path.suffix == ".jsonl" for path in found)


def test_readable_files_of_an_earlier_version_are_restricted_at_start(settings: Settings) -> None:
    files = ("datasets/blob.jsonl", "jobs/job_1/artifacts/model.safetensors", "logs/api.log", "models/m/config.json")
    for file in files:
        path = settings.data_dir / file
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    program = settings.data_dir / "models" / "m" / "program"
    program.touch(0o755)
    beside = [settings.data_dir / name for name in ("service-url", "stack.lock")]
    for path in beside:
        path.touch()
        path.chmod(0o666)
    elsewhere = settings.data_dir.parent / "elsewhere"
    elsewhere.mkdir()
    (settings.models_dir / "linked").symlink_to(elsewhere)

    with TestClient(create_app(settings)):
        pass

    for file in files:
        path = settings.data_dir / file
        assert mode(path) == 0o600
        while (path := path.parent) != settings.data_dir:
            assert mode(path) == 0o700, path
    assert mode(program) == 0o700
    assert [mode(path) for path in beside] == [0o600, 0o600]
    assert mode(elsewhere) == 0o755, "a link leads to a folder of another user"


def test_a_file_that_cannot_be_restricted_is_logged_and_the_rest_is_restricted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "logs" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "logs" / name).touch()
    change = Path.chmod

    def refuse_one(path: Path, mode: int) -> None:
        if path.name == "a":
            raise PermissionError(1, "Operation not permitted")
        change(path, mode)

    monkeypatch.setattr(Path, "chmod", refuse_one)
    with capture_logs() as logs:
        private_files.restrict_data_folder(tmp_path)

    [entry] = logs
    assert entry["event"] == "files.not_private"
    assert entry["path"] == str(tmp_path / "logs" / "a")
    assert mode(tmp_path / "logs" / "b") == 0o600


def test_the_data_folder_itself_is_restricted_unless_it_contains_something_else(tmp_path: Path) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    for folder in (own, shared):
        (folder / "jobs").mkdir(parents=True)
        folder.chmod(0o755)
    (shared / "catalogue.toml").touch()

    for folder in (own, shared):
        private_files.restrict_data_folder(folder)

    # Run by root, PostgreSQL's account must be able to traverse it.
    assert mode(own) == (0o711 if os.geteuid() == 0 else 0o700)
    assert mode(shared) == 0o755
