"""The files of a result as they are recorded: by name, size and SHA-256."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from store.tables import Artifact


def hash_artifacts(job_id: str, folder: Path, *, at: datetime) -> Sequence[Artifact]:
    """Every file below `folder`, named by its path in it; links are left out, which may lead anywhere."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [_hash_artifact(job_id, path, path.relative_to(folder).as_posix(), at) for path in files]


def _hash_artifact(job_id: str, path: Path, name: str, at: datetime) -> Artifact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(job_id=job_id, name=name, bytes=path.stat().st_size, sha256=digest, created_at=at)
