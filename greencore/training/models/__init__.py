"""Models on disk and in memory: loading, precision, weights and deltas."""
