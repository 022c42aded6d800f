"""What training any set of tensors costs in FLOPs (paper §2.3 and §3.1)."""
