"""Settings of a run: their schema, checks and faults, the length that follows from them, and their text."""
