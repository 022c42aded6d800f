"""Benchmark of what each method learns for its FLOPs, energy and seconds, at several budgets."""
