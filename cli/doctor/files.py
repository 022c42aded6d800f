"""Checks of the secret, the data folder, the catalogue and its models."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from api.figures import format_size
from cli.doctor.check import CheckResult
from cli.errors import SettingError
from cli.stack.data_folder import read_secret, secret_file
from runtime.catalogue import CatalogueEntry, CatalogueError, read_catalogue
from runtime.settings import Settings

# Enough for a model of some hundred million parameters, its checkpoints and its result.
LOW_DISK_BYTES = 10 * 2**30
OFFLINE = "HF_HUB_OFFLINE"


def run_checks(settings: Settings) -> Iterator[CheckResult]:
    """Check the files that the service writes and reads."""
    yield _secret(settings)
    yield from _folder(settings.data_dir)
    yield from _catalogue(settings)


def _secret(settings: Settings) -> CheckResult:
    if settings.secret_key is not None:
        return CheckResult("secret key", "ok", "GREENTUNE_SECRET_KEY is set")
    file = secret_file(settings.data_dir)
    try:
        if read_secret(settings.data_dir) is not None:
            return CheckResult("secret key", "ok", f"kept in {file}")
    except SettingError as error:
        mend = "restore the file from a backup, or set GREENTUNE_SECRET_KEY"
        return CheckResult("secret key", "failed", str(error), mend)
    found = f"GREENTUNE_SECRET_KEY is not set, and there is no {file}"
    advice = "for any other deployment set 32 random characters, as of `openssl rand -hex 32`"
    return CheckResult("secret key", "warning", found, f"`greentune serve` makes one; {advice}")


def _folder(folder: Path) -> Iterator[CheckResult]:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        mend = f"let this user write there, or name another folder with GREENTUNE_DATA_DIR ({existing})"
        yield CheckResult("data folder", "failed", f"{folder} cannot be written: {os.strerror(error.errno or 0)}", mend)
        return
    is_new = "" if existing == folder.absolute() else ", which is made at the first start"
    yield CheckResult("data folder", "ok", f"{folder} can be written{is_new}")
    free = shutil.disk_usage(existing).free
    if free < LOW_DISK_BYTES:
        mend = "make room, or name a folder on a larger disk with GREENTUNE_DATA_DIR"
        yield CheckResult("disk", "warning", f"{format_size(free)} free: checkpoints and results may not fit", mend)
    else:
        yield CheckResult("disk", "ok", f"{format_size(free)} free")


def _catalogue(settings: Settings) -> Iterator[CheckResult]:
    try:
        entries = read_catalogue(settings.catalogue)
    except CatalogueError as error:
        yield CheckResult("catalogue", "failed", str(error), "correct the file that GREENTUNE_CATALOGUE names")
        return
    if not entries:
        mend = "add one to the file that GREENTUNE_CATALOGUE names"
        yield CheckResult("catalogue", "failed", "it holds no model", mend)
        return
    lost = [entry.name for entry in entries.values() if not _source_exists(entry)]
    if lost:
        mend = "install the package or restore the files that their `source` names"
        yield CheckResult("catalogue", "failed", f"the source of {', '.join(lost)} is not there", mend)
    else:
        yield CheckResult("catalogue", "ok", f"{len(entries)} models")
    yield _hub(settings, [entry for entry in entries.values() if entry.source.startswith("hub:")])


def _source_exists(entry: CatalogueEntry) -> bool:
    kind, _, name = entry.source.partition(":")
    if kind == "hub":
        return True
    return find_spec(name) is not None if kind == "package" else Path(entry.source).exists()


def _hub(settings: Settings, entries: list[CatalogueEntry]) -> CheckResult:
    offline = os.environ.get(OFFLINE, "").upper() in {"1", "ON", "YES", "TRUE"}
    state = f"{OFFLINE} is set: nothing is fetched" if offline else f"{OFFLINE} is not set: models can be fetched"
    missing = [entry.name for entry in entries if not (settings.models_dir / entry.name).exists()]
    if missing and offline:
        mend = f"fetch them once without {OFFLINE}, into {settings.models_dir}"
        return CheckResult("model hub", "warning", f"{state}, and {', '.join(missing)} has not been fetched yet", mend)
    return CheckResult("model hub", "ok", f"{state}; {len(entries)} models of the catalogue come from it")
