"""Curves of jobs, read and downsampled for charts."""
