"""Benchmarks of the service and its pages under load."""
