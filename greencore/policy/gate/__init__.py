"""The gate, which decides whether a run computes now: forecasts, cleanest hours, decision."""
