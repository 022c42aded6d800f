"""The secret of a stack that was given none: made once, and kept in the data folder for its owner alone to read."""

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from cli.errors import SettingError

MIN_LENGTH = 32


def secret_file(data_dir: Path) -> Path:
    """Where it is kept."""
    return data_dir / "secret-key"


def read_secret(data_dir: Path) -> SecretStr | None:
    """The secret that is kept there, None where there is none. Raises `SettingError` where it is no secret."""
    file = secret_file(data_dir)
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingError(f"{file} cannot be read: {error.strerror}") from error
    if len(text) < MIN_LENGTH:
        raise SettingError(
            f"{file} holds no secret of at least {MIN_LENGTH} characters: restore it, or delete it, which makes every "
            "key useless that was made with it"
        )
    return SecretStr(text)


def make_secret(data_dir: Path) -> SecretStr:
    """A new secret, kept from now on."""
    text = secrets.token_hex(32)
    draft = secret_file(data_dir).with_suffix(".draft")
    draft.unlink(missing_ok=True)
    # Moved to its place when it is whole: an interrupted start leaves no half of one.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(secret_file(data_dir))
    return SecretStr(text)
