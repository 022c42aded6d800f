"""Prices metered energy, and divides what a job saved into its causes."""
