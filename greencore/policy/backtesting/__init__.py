"""Simulation of policies on recorded intensities."""
