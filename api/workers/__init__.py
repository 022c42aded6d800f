"""Worker processes and their state."""
