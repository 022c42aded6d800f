"""What is said of a job that cannot go on: the title, the detail, and the field that is to blame."""

import re
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError

from greencore.backprop import BudgetTooSmall, NotFinite, TraceError
from greencore.dataset import InvalidRow
from greencore.policy import IntensityMissing
from greencore.training.checkpoints.folder import CheckpointDamaged, CheckpointUnusable, DiskFull, is_disk_full
from greencore.training.data.positions import MaxLengthExceeded
from greencore.training.methods.baselines import BaselineError
from greencore.training.models.loading import ModelError
from runtime.settings import get_settings
from store.repositories.datasets import DatasetDeleted
from worker.preparation.budget_check import BudgetInfeasible

ERROR_TITLES: tuple[tuple[type[Exception], str, str | None], ...] = (
    (BudgetTooSmall, "ρ is below the model's floor", "policy"),
    (BaselineError, "The method cannot train this model", "method"),
    (MaxLengthExceeded, "The model has too few positions", "hyperparameters.max_length"),
    (BudgetInfeasible, "The budget cannot be kept", "policy.budget_gco2e"),
    (IntensityMissing, "No carbon intensity to decide by", "policy.on_missing"),
    (InvalidRow, "A row of the dataset cannot be used", "dataset"),
    (ModelError, "The model cannot be used", "model"),
    (TraceError, "The model cannot be traced", "model"),
    (NotFinite, "Training produced a number that is not finite", None),
    (CheckpointUnusable, "The checkpoint cannot be gone on from", None),
)
# Raised with words for a job's owner, also where another error quotes them; a template's are for who wrote the rows.
EXPECTED_ERRORS = (TemplateError, CheckpointDamaged, *(kind for kind, _, _ in ERROR_TITLES))
OUT_OF_MEMORY = "The device has too little memory"
MAX_DETAIL_LENGTH = 2000
ABSOLUTE_PATH = re.compile(r"(?<![\w:/.~])/(?:[^\s/'\",:;()]+/)+([^\s/'\",:;()]+)")


def explain_error(error: Exception, *, reference: str = "the id of its job") -> dict[str, Any]:
    """Return the error as its job's owner reads it.

    Errors that are raised on purpose keep their own words. What any other one says may hold SQL, paths, addresses or
    texts of others: it is for the log alone, where `reference`, fields of its lines, finds it.
    """
    if _is_disk_full(error):
        detail = "there is no room left in the data folder. Once there is, a retry goes on from the last checkpoint"
        return {"title": "The disk is full", "detail": detail, "field": None}
    if isinstance(error, FileNotFoundError) and (gone := _explain_missing_file(error)) is not None:
        return gone
    if isinstance(error, torch.OutOfMemoryError):
        detail = "the device ran out of memory: a smaller batch_size or max_length takes less"
        return {"title": OUT_OF_MEMORY, "detail": detail, "field": "hyperparameters.batch_size"}
    for kind, title, field in ERROR_TITLES:
        if isinstance(error, kind):
            return {"title": title, "detail": redact_message(error), "field": field}
    detail = f"an error that GreenTune does not know; an operator finds it in the worker's log under {reference}"
    return {"title": "The run failed unexpectedly", "detail": detail, "field": None}


def redact_message(error: BaseException) -> str:
    """Return the text of an error that is raised on purpose, with the type of the error behind it for its quotation.

    Of an absolute path the last part stays.
    """
    text, cause = str(error), error.__cause__
    quoted = "" if cause is None else str(cause).strip()
    if cause is not None and quoted:
        told = (
            redact_message(cause)
            if isinstance(cause, EXPECTED_ERRORS)
            else f"{type(cause).__name__}, which the log tells"
        )
        text = text.replace(quoted, told)
    text = text.replace(f"{get_settings().data_dir.resolve()}/", "")
    return ABSOLUTE_PATH.sub(r"\1", text)[:MAX_DETAIL_LENGTH]


def _is_disk_full(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, DiskFull) or is_disk_full(error) or _is_disk_full(error.__cause__))


def _explain_missing_file(error: FileNotFoundError) -> dict[str, Any] | None:
    """A file was removed behind the service's back: the dataset's rows, or something in the job's own folder.

    None where it is not known which file was missed.
    """
    if isinstance(error, DatasetDeleted):
        return {"title": "The dataset is gone", "detail": str(error), "field": "dataset"}
    if not isinstance(error.filename, str | PathLike):
        return None
    name = Path(error.filename).name
    if name.endswith(".jsonl"):
        detail = f"{name}, which holds the dataset's rows, is not on disk any more: upload the dataset again"
        return {"title": "The dataset is gone", "detail": detail, "field": "dataset"}
    return {"title": "A file of the job is gone", "detail": f"{name} is not on disk any more", "field": None}
