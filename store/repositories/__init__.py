"""Repositories: queries and writes of each kind of row, inside the caller's transaction."""
