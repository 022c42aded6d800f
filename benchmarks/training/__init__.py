"""Benchmarks of the method: budget, selector, costs, time, memory and quality."""
