"""Fine-tuning with adaptive backpropagation."""

from greencore.training.callback import BaselineCallback, GreenTrainerCallback
from greencore.training.ledger import EpochReport, Reselection

__all__ = ["BaselineCallback", "EpochReport", "GreenTrainerCallback", "Reselection"]
