"""The model that a job starts from: one of the catalogue, or the result of an earlier job, built from its chain."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog

from greencore.training.models.delta import DELTA_FILE_NAME, DeltaError, apply_delta
from greencore.training.models.loading import ModelError, resolve_model_folder
from runtime.catalogue import read_catalogue
from runtime.private_files import make_private_folder
from runtime.settings import Settings
from store.repositories.lineage import WHOLE_MODEL_FILE, ResultRemoved
from store.tables import Job

log = structlog.get_logger()

BASE_FOLDER = "base"  # in a job's folder: its base's result, where that is not a whole model


def fetch_model_folder(name: str, settings: Settings) -> Path:
    """Return the folder of a catalogue model's safetensors, downloaded if needed. Raises `ModelError`."""
    entries = read_catalogue(settings.catalogue)
    if name not in entries:
        raise ModelError(f"{name} is no longer in the catalogue, which has {', '.join(sorted(entries))}")
    make_private_folder(settings.models_dir)
    return resolve_model_folder(entries[name].source, settings.models_dir / name)


def fetch_nearest_model(job: Job, bases: Sequence[Job], settings: Settings) -> Path:
    """Return the folder of the nearest whole model behind a job, which has the shapes and tokenizer of its base.

    `bases` are the jobs behind it, nearest first. Raises `ModelError`, also where a result that is needed is missing.
    """
    return _find_whole_model(job, bases, settings)[0]


def fetch_base_model(job: Job, bases: Sequence[Job], settings: Settings) -> Path:
    """Return the folder of the model that a job trains; built in the job's folder from deltas and adapters if needed.

    The caller has checked its lease: folders of attempts that were killed are removed. Raises `ModelError`.
    """
    folder, changes = _find_whole_model(job, bases, settings)
    built = settings.job_dir(job.id) / BASE_FOLDER
    for stale in (*built.parent.glob(f".{BASE_FOLDER}-*"), *built.parent.glob(f"..{BASE_FOLDER}-*")):
        shutil.rmtree(stale, ignore_errors=True)
    if not changes or (built / WHOLE_MODEL_FILE).is_file():
        return built if changes else folder
    steps = [built.with_name(f".{BASE_FOLDER}-{number}") for number in range(1, len(changes))]
    for change, output in zip(reversed(changes), [*steps, built], strict=True):
        try:
            folder = _apply_change(folder, change, output)
        except OSError:
            if not (output / WHOLE_MODEL_FILE).is_file():
                raise
            folder = output  # completed meanwhile by an attempt that has lost its lease
        log.info("base.built", base=change.parent.name)
    for step in steps:
        shutil.rmtree(step, ignore_errors=True)
    return folder


def _find_whole_model(job: Job, bases: Sequence[Job], settings: Settings) -> tuple[Path, list[Path]]:
    """Return the nearest whole model, and the results since it, newest first."""
    changes: list[Path] = []
    for base in bases:
        result = settings.job_dir(base.id) / "artifacts"
        if not result.is_dir():
            raise ModelError(str(ResultRemoved(base.id)))
        if (result / WHOLE_MODEL_FILE).is_file():
            return result, changes
        changes.append(result)
    return fetch_model_folder(job.model, settings), changes


def _apply_change(folder: Path, change: Path, output: Path) -> Path:
    delta = change / DELTA_FILE_NAME
    if not delta.is_file():
        from greencore.training.models.adapter_result import apply_adapter

        return apply_adapter(folder, change, output)
    try:
        return apply_delta(folder, delta, output)
    except DeltaError as error:
        raise ModelError(f"the delta of {change.parent.name} cannot be applied: {error}") from error
