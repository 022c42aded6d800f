"""Benchmarks of policies and forecasts on recorded years."""
