"""Fine-tuning with adaptive backpropagation (GreenTrainer) and the paper's baselines."""

from greencore.training.methods.callback import BaselineCallback, GreenTrainerCallback
from greencore.training.methods.epoch_ledger import EpochReport, Reselection

__all__ = ["BaselineCallback", "EpochReport", "GreenTrainerCallback", "Reselection"]
