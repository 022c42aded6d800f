"""A stack's own files in its data folder: its lock, its secret, and the address of its service."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import SecretStr

from cli.errors import SettingError
from runtime.private_files import make_private_folder, open_private

MIN_SECRET_LENGTH = 32


@contextmanager
def lock_data_folder(data_dir: Path) -> Iterator[None]:
    """Lock the data folder against a second stack; the lock ends with this process, even if it is killed."""
    try:
        make_private_folder(data_dir)
        lock = open(data_dir / "stack.lock", "a+", opener=open_private)  # noqa: SIM115  (closed below)
    except OSError as error:
        raise SettingError(f"--data-dir (GREENTUNE_DATA_DIR): {data_dir} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise SettingError(
                f"--data-dir (GREENTUNE_DATA_DIR): {data_dir} is in use by another `greentune` "
                f"(process {lock.read().strip() or 'unknown'}): stop that one, or choose another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def secret_file(data_dir: Path) -> Path:
    """Return the file of the secret that is used where the settings have none."""
    return data_dir / "secret-key"


def read_secret(data_dir: Path) -> SecretStr | None:
    """Return the stored secret, None where there is none. Raises `SettingError` for a damaged file."""
    file = secret_file(data_dir)
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingError(f"{file} cannot be read: {error.strerror}") from error
    if len(text) < MIN_SECRET_LENGTH:
        raise SettingError(
            f"{file} holds no secret of at least {MIN_SECRET_LENGTH} characters: restore it, or delete it, which makes "
            "every key useless that was made with it"
        )
    return SecretStr(text)


def make_secret(data_dir: Path) -> SecretStr:
    """Create a secret and store it."""
    text = secrets.token_hex(32)
    _replace(secret_file(data_dir), text)
    return SecretStr(text)


@contextmanager
def advertise_service(data_dir: Path, url: str) -> Iterator[None]:
    """Tell commands on this machine where the service is, for as long as the block runs."""
    file = _service_url_file(data_dir)
    _replace(file, f"{os.getpid()} {url}")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def discover_service(data_dir: Path) -> str | None:
    """Return the address of the service that runs in this data folder; None where none runs."""
    try:
        pid, url = _service_url_file(data_dir).read_text().split()
        return url if psutil.pid_exists(int(pid)) else None  # a killed service leaves its file behind
    except (OSError, ValueError):
        return None


def _service_url_file(data_dir: Path) -> Path:
    return data_dir / "service-url"


def _replace(file: Path, text: str) -> None:
    """Replace a private file; it is moved into place when it is complete, so that no part of one is ever read."""
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with open(draft, "x", opener=open_private) as new:
        new.write(f"{text}\n")
        new.flush()
        os.fsync(new.fileno())
    draft.replace(file)
