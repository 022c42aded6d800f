"""Simulating policies on recorded intensities."""
