"""Whether a run computes now: forecasts, cleanest hours, and the gate's decision."""
