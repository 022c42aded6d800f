"""Training with adaptive backpropagation: a callback for any Trainer, and whole runs."""

from greencore.training.callback import EpochReport, GreenTrainerCallback

__all__ = ["EpochReport", "GreenTrainerCallback"]
