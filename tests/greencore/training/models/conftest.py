"""Fixture: a copy of the small model."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    """Copy of the small model that a test may change."""
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))
