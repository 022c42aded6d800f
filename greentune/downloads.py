"""Downloads an artifact to a file: resumes after a broken connection, checks the SHA-256, and moves it into place."""

import hashlib
import os
import time
from pathlib import Path, PurePath
from tempfile import NamedTemporaryFile
from typing import IO

import httpx

from greentune.errors import ChecksumMismatch, UnexpectedAnswer, Unreachable
from greentune.models import Artifact
from greentune.transport import Transport, resource_path


def download(transport: Transport, job_id: str, artifact: Artifact, path: Path) -> Path:
    """Download an artifact to `path`, or under its name into the folder `path`, and return the file.

    Raises `ChecksumMismatch`, without a new file, where the SHA-256 differs from the recorded one.
    """
    if PurePath(artifact.name).name != artifact.name or artifact.name in ("", ".", ".."):
        raise UnexpectedAnswer(f"{job_id}: {artifact.name!r} is not a valid file name")
    target = path / artifact.name if path.is_dir() else path
    draft = NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False)  # noqa: SIM115
    try:
        with draft:
            digest = _receive(transport, resource_path("jobs", job_id, "artifacts", artifact.name), draft)
            os.fsync(draft.fileno())
        if digest != artifact.sha256:
            raise ChecksumMismatch(
                f"{artifact.name} of {job_id}: expected the SHA-256 {artifact.sha256}, got {digest}: download it again"
            )
        # A temporary file is private to its owner; the artifact has the permissions of any new file.
        mask = os.umask(0)
        os.umask(mask)
        Path(draft.name).chmod(0o666 & ~mask)
        Path(draft.name).replace(target)
    finally:
        Path(draft.name).unlink(missing_ok=True)
    return target


def _receive(transport: Transport, link: str, file: IO[bytes]) -> str:
    """Write the content of `link` and return its SHA-256; attempts without new bytes are bounded as those of a call."""
    digest, tag = hashlib.sha256(), ""
    pauses = transport.backoff_delays()
    while True:
        begun_at = file.tell()
        headers = {"Accept": "application/octet-stream"}
        if begun_at and tag:
            headers |= {"Range": f"bytes={begun_at}-", "If-Range": tag}
        try:
            with transport.stream(link, headers=headers) as response:
                if response.status_code != httpx.codes.PARTIAL_CONTENT:
                    file.seek(0)
                    file.truncate()
                    digest = hashlib.sha256()
                tag = response.headers.get("etag", "")
                # Chunks of any size: httpx would lose an incomplete one where the answer breaks off.
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    digest.update(chunk)
            return digest.hexdigest()
        except Unreachable:
            pauses = transport.backoff_delays() if file.tell() > begun_at else pauses
            pause = next(pauses, None)
            if pause is None:
                raise
            time.sleep(pause)
