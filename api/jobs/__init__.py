"""Jobs: submission, progress, actions and results."""
