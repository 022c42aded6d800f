"""Tells owners when their jobs have ended, at a URL of theirs."""
