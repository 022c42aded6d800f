"""An artifact on its way to a file: taken up where it broke off, checked, and put in place when it is whole."""

import hashlib
import os
import time
from pathlib import Path, PurePath
from tempfile import NamedTemporaryFile
from typing import IO

import httpx

from greentune.errors import ChecksumMismatch, UnexpectedAnswer, Unreachable
from greentune.models import Artifact
from greentune.transport import Transport


def download(transport: Transport, job_id: str, artifact: Artifact, path: Path) -> Path:
    """Write an artifact to `path`, or under its own name where `path` is a folder. Returns the file.

    Raises `ChecksumMismatch` where the bytes are not those that were recorded; then there is no new file.
    """
    if PurePath(artifact.name).name != artifact.name or artifact.name in ("", ".", ".."):
        raise UnexpectedAnswer(f"{job_id}: {artifact.name!r} is no name of a file")
    target = path / artifact.name if path.is_dir() else path
    draft = NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False)  # noqa: SIM115
    try:
        with draft:
            digest = _receive(transport, f"/jobs/{job_id}/artifacts/{artifact.name}", draft)
            os.fsync(draft.fileno())
        if digest != artifact.sha256:
            raise ChecksumMismatch(
                f"{artifact.name} of {job_id}: expected the SHA-256 {artifact.sha256}, got {digest}: download it again"
            )
        # A temporary file is for its owner alone; this one is as any other that they write.
        mask = os.umask(0)
        os.umask(mask)
        Path(draft.name).chmod(0o666 & ~mask)
        Path(draft.name).replace(target)
    finally:
        Path(draft.name).unlink(missing_ok=True)
    return target


def _receive(transport: Transport, link: str, file: IO[bytes]) -> str:
    """Write what is at `link`; the SHA-256 of it. Attempts that bring nothing are bounded, as those of a call."""
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
                # Of no given size: httpx would keep what does not fill one, and lose it where the answer breaks off.
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
