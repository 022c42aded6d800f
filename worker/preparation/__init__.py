"""Preparation of jobs and datasets on a CPU: validation, estimates and token counts."""
