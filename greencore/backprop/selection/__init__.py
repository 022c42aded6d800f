"""Selection of the tensors to train: the set of greatest importance within a budget (paper §3.3, exact)."""
