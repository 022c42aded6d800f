"""Commands that use a running service through its client."""
