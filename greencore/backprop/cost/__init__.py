"""FLOPs of a training step for any set of trained tensors (paper §2.3, §3.1)."""
