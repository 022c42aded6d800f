"""The order in which files of tests are taken up, and which of them one process runs.

A file whose tests start workers, servers or browsers waits for them half of the time. Many such files at once leave
cores idle; one beside others that compute does not.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from xdist.scheduler.loadfile import LoadFileScheduling  # type: ignore[import-untyped]

IO_BOUND_FOLDERS = ("acceptance", "browser", "chaos", "cli", "deployment", "docs")


def interleave_files(items: Sequence[pytest.Item], root: Path) -> list[pytest.Item]:
    """The tests file by file, both kinds of files spread evenly; tests of a file stay as they are."""
    by_file: dict[Path, list[pytest.Item]] = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    kinds: dict[bool, list[Path]] = {True: [], False: []}
    for file in by_file:
        kinds[any(root / folder in file.parents for folder in IO_BOUND_FOLDERS)].append(file)
    places = {file: place for files in kinds.values() for file, place in _spread(files)}
    return [item for file in sorted(by_file, key=places.__getitem__) for item in by_file[file]]


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Gives each process whole files, and all of `tests/chaos` to one, whose tests share the service of a session."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/chaos" if nodeid.startswith("tests/chaos/") else super()._split_scope(nodeid)


def _spread(files: Sequence[Path]) -> Iterable[tuple[Path, float]]:
    return ((file, (index + 0.5) / len(files)) for index, file in enumerate(files))
