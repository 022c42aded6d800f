"""Predictions and placement of jobs: cost, duration, end, minimum budget, zone."""
