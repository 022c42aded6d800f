"""Runs of `fine_tune` in several processes, which agents start and which report to the one that asked for them."""
