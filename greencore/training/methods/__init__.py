"""Trainer callbacks for adaptive backpropagation and the paper's baselines."""
