"""Stored carbon intensity of each zone: readings, forecasts, and how the providers answer."""
