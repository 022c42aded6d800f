"""What is said of a job that cannot go on: the title, the detail, and the field that is to blame."""

from pathlib import Path
from typing import Any

import torch

from greencore.backprop import BudgetTooSmall, NotFinite, TraceError
from greencore.dataset import InvalidRow
from greencore.policy import IntensityMissing
from greencore.training.baselines import BaselineError
from greencore.training.checkpoint_folder import CheckpointUnusable, DiskFull, is_disk_full
from greencore.training.models import ModelError
from greencore.training.positions import TooLong
from worker.budget import BudgetImpossible

FIELDS: tuple[tuple[type[Exception], str, str | None], ...] = (
    (BudgetTooSmall, "ρ is below the model's floor", "policy"),
    (BaselineError, "The method cannot train this model", "method"),
    (TooLong, "The model has too few positions", "hyperparameters.max_length"),
    (BudgetImpossible, "The budget cannot be kept", "policy.budget_gco2e"),
    (IntensityMissing, "No carbon intensity to decide by", "policy.on_missing"),
    (InvalidRow, "A row of the dataset cannot be used", "dataset"),
    (ModelError, "The model cannot be used", "model"),
    (TraceError, "The model cannot be traced", "model"),
    (NotFinite, "Training produced a number that is not finite", None),
    (CheckpointUnusable, "The checkpoint cannot be gone on from", None),
    (torch.OutOfMemoryError, "The device has too little memory", "hyperparameters.batch_size"),
)


def explain(error: Exception) -> dict[str, Any]:
    """The error as it is stored with the job; one that nobody foresaw is named as such."""
    if _disk_full(error):
        detail = f"{error}. Once there is room, a retry goes on from the last checkpoint"
        return {"title": "The disk is full", "detail": detail, "field": None}
    if isinstance(error, FileNotFoundError):
        return _gone(error)
    for kind, title, field in FIELDS:
        if isinstance(error, kind):
            return {"title": title, "detail": str(error), "field": field}
    return {"title": "The run failed unexpectedly", "detail": f"{type(error).__name__}: {error}", "field": None}


def _disk_full(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, DiskFull) or is_disk_full(error) or _disk_full(error.__cause__))


def _gone(error: FileNotFoundError) -> dict[str, Any]:
    """A file was removed behind the service's back: the dataset's rows, or something in the job's own folder."""
    if error.filename is None:
        return {"title": "The dataset is gone", "detail": str(error), "field": "dataset"}
    name = Path(error.filename).name
    if name.endswith(".jsonl"):
        detail = f"{name}, which holds the dataset's rows, is not on disk any more: upload the dataset again"
        return {"title": "The dataset is gone", "detail": detail, "field": "dataset"}
    return {"title": "A file of the job is gone", "detail": f"{name} is not on disk any more", "field": None}
