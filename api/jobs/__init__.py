"""Submitting jobs and reading how they fare."""
