"""Estimate of a job's time, energy and emissions before it is submitted."""
