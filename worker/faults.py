"""What is said of a job that cannot go on: the title, the detail, and the field that is to blame."""

from typing import Any

import torch

from greencore.backprop import BudgetTooSmall, NotFinite, TraceError
from greencore.dataset import InvalidRow
from greencore.policy import IntensityMissing
from greencore.training.baselines import BaselineError
from greencore.training.models import ModelError
from worker.budget import BudgetImpossible

FIELDS: tuple[tuple[type[Exception], str, str], ...] = (
    (BudgetTooSmall, "ρ is below the model's floor", "policy"),
    (BaselineError, "The method cannot train this model", "method"),
    (BudgetImpossible, "The budget cannot be kept", "policy.budget_gco2e"),
    (IntensityMissing, "No carbon intensity to decide by", "policy.on_missing"),
    (InvalidRow, "A row of the dataset cannot be used", "dataset"),
    (ModelError, "The model cannot be used", "model"),
    (TraceError, "The model cannot be traced", "model"),
    (NotFinite, "Training has diverged", "hyperparameters.learning_rate"),
    (torch.OutOfMemoryError, "The device has too little memory", "hyperparameters.batch_size"),
    (FileNotFoundError, "A file of the job is gone", "dataset"),
)


def explain(error: Exception) -> dict[str, Any]:
    """The error as it is stored with the job; one that nobody foresaw is named as such."""
    for kind, title, field in FIELDS:
        if isinstance(error, kind):
            return {"title": title, "detail": str(error), "field": field}
    return {"title": "The run failed unexpectedly", "detail": f"{type(error).__name__}: {error}", "field": None}
