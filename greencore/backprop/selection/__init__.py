"""Which tensors to train: the most important set within a budget (paper §3.3, exact)."""
