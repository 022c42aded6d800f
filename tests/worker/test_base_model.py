"""The model that a job trains further, built from earlier results, after a killed attempt and beside a late one."""

from pathlib import Path

import pytest

from runtime.settings import Settings
from store.repositories.lineage import WHOLE_MODEL_FILE
from store.tables import Job
from worker.base_model import fetch_base_model


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / WHOLE_MODEL_FILE).write_text("{}")
    return folder


@pytest.fixture
def bases(settings: Settings) -> list[Job]:
    """A job whose result is a whole model, and one after it whose result is a delta; nearest first."""
    write_model(settings.job_dir("whole") / "artifacts")
    (settings.job_dir("delta") / "artifacts").mkdir(parents=True)
    return [Job(id="delta"), Job(id="whole")]


def test_a_base_that_another_attempt_completes_first_is_used(
    settings: Settings, bases: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(folder: Path, change: Path, output: Path) -> Path:
        write_model(output)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr("worker.base_model._apply_change", lose)
    assert fetch_base_model(Job(id="job"), bases, settings) == settings.job_dir("job") / "base"


def test_an_error_of_the_disk_fails_the_base(
    settings: Settings, bases: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(folder: Path, change: Path, output: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worker.base_model._apply_change", fill)
    with pytest.raises(OSError, match="No space left"):
        fetch_base_model(Job(id="job"), bases, settings)


def test_the_folders_of_a_killed_attempt_are_removed(settings: Settings, bases: list[Job]) -> None:
    folder = settings.job_dir("job")
    built = write_model(folder / "base")
    for name in (".base-x1y2", "..base-1-x1y2", ".base-1"):
        write_model(folder / name)
    assert fetch_base_model(Job(id="job"), bases, settings) == built
    assert [path.name for path in folder.iterdir()] == ["base"]
