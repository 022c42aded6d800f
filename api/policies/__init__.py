"""Storing named policies, version by version."""
