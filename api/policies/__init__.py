"""Policies: named versions, and their simulation."""
