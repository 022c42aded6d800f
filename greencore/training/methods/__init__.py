"""Adaptive backpropagation and the paper's baselines as callbacks of a Trainer."""
