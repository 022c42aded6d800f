"""Preparing jobs and datasets on a CPU: checks, estimates and token counts."""
