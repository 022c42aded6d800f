"""Stored carbon intensity of each zone: readings, forecasts, and the health of their providers."""
