"""Converts an exception into the error of a failed job: title, detail, and the field that caused it."""

import re
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError

from greencore.backprop import BudgetTooSmall, NotFinite, TraceError
from greencore.dataset import InvalidRow
from greencore.disk import DiskFull, is_disk_full
from greencore.policy import IntensityMissing
from greencore.settings.hyperparameters import SettingUnsupported
from greencore.settings.method_choice import MethodsUnavailable
from greencore.training.batches.micro_batches import StepTooLarge
from greencore.training.batches.positions import MaxLengthExceeded
from greencore.training.checkpoints.folder import CheckpointDamaged, CheckpointUnusable
from greencore.training.data.held_out_rows import ValidationRowsUnusable
from greencore.training.methods.baselines import BaselineError
from greencore.training.models.loading import ModelError
from runtime.settings import get_settings
from store.repositories.datasets import DatasetDeleted
from worker.preparation.budget_check import BudgetInfeasible
from worker.preparation.memory import DeviceTooSmall

OUT_OF_MEMORY = "The device has too little memory"
ERROR_TITLES: tuple[tuple[type[Exception], str, str | None], ...] = (
    (BudgetTooSmall, "ρ is below the model's floor", "policy"),
    (BaselineError, "The method cannot train this model", "method"),
    (MethodsUnavailable, "No method can train this model", "method"),
    (MaxLengthExceeded, "The model has too few positions", "hyperparameters.max_length"),
    (SettingUnsupported, "The setting is not supported", None),
    (DeviceTooSmall, OUT_OF_MEMORY, "hyperparameters.micro_batch_size"),
    (BudgetInfeasible, "The budget cannot be kept", "policy.budget_gco2e"),
    (IntensityMissing, "No carbon intensity to decide by", "policy.on_missing"),
    (ValidationRowsUnusable, "The validation dataset cannot be used", "validation_dataset"),
    (InvalidRow, "A row of the dataset cannot be used", "dataset"),
    (ModelError, "The model cannot be used", "model"),
    (TraceError, "The model cannot be traced", "model"),
    (StepTooLarge, OUT_OF_MEMORY, "hyperparameters.micro_batch_size"),
    (NotFinite, "Training produced a number that is not finite", None),
    (CheckpointUnusable, "The checkpoint cannot be resumed from", None),
)
# Their messages are written for the job's owner, also where another error quotes them.
EXPECTED_ERRORS = (TemplateError, CheckpointDamaged, *(kind for kind, _, _ in ERROR_TITLES))
MAX_DETAIL_LENGTH = 2000
ABSOLUTE_PATH = re.compile(r"(?<![\w:/.~])/(?:[^\s/'\",:;()]+/)+([^\s/'\",:;()]+)")


def explain_error(error: Exception, *, reference: str = "the id of its job") -> dict[str, Any]:
    """Return the title, detail and field of an error, for the job's owner.

    Expected errors keep their message. Any other message may contain SQL, paths, addresses or other users' texts: only
    the log has it, on the lines with the fields `reference`.
    """
    if _is_disk_full(error):
        detail = "the data folder has no space left. Once it has, a retry resumes from the last checkpoint"
        return {"title": "The disk is full", "detail": detail, "field": None}
    if isinstance(error, FileNotFoundError) and (gone := _explain_missing_file(error)) is not None:
        return gone
    if isinstance(error, torch.OutOfMemoryError):
        detail = "the device ran out of memory: a smaller micro_batch_size or max_length takes less"
        return {"title": OUT_OF_MEMORY, "detail": detail, "field": "hyperparameters.micro_batch_size"}
    for kind, title, field in ERROR_TITLES:
        if isinstance(error, kind):
            if isinstance(error, SettingUnsupported):
                field = f"hyperparameters.{error.field}"
            return {"title": title, "detail": redact_message(error), "field": field}
    detail = f"an unexpected error; an operator finds it in the worker's log under {reference}"
    return {"title": "The run failed unexpectedly", "detail": detail, "field": None}


def redact_message(error: BaseException) -> str:
    """Return the message of an expected error, in which a quoted unexpected cause is replaced by its type.

    Absolute paths are reduced to their last part.
    """
    text, cause = str(error), error.__cause__
    quoted = "" if cause is None else str(cause).strip()
    if cause is not None and quoted:
        replacement = (
            redact_message(cause)
            if isinstance(cause, EXPECTED_ERRORS)
            else f"{type(cause).__name__}, which is in the log"
        )
        text = text.replace(quoted, replacement)
    text = text.replace(f"{get_settings().data_dir.resolve()}/", "")
    return ABSOLUTE_PATH.sub(r"\1", text)[:MAX_DETAIL_LENGTH]


def _is_disk_full(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, DiskFull) or is_disk_full(error) or _is_disk_full(error.__cause__))


def _explain_missing_file(error: FileNotFoundError) -> dict[str, Any] | None:
    """Explain a missing dataset or job file, which was removed outside the service; None where its name is unknown."""
    if isinstance(error, DatasetDeleted):
        return {"title": "The dataset is missing", "detail": str(error), "field": "dataset"}
    if not isinstance(error.filename, str | PathLike):
        return None
    name = Path(error.filename).name
    if name.endswith(".jsonl"):
        detail = f"{name}, which holds the dataset's rows, is no longer on disk: upload the dataset again"
        return {"title": "The dataset is missing", "detail": detail, "field": "dataset"}
    return {"title": "A file of the job is missing", "detail": f"{name} is no longer on disk", "field": None}
