"""Runs of `fine_tune` in several processes, which `torchrun` starts and which report to the one that asked for them."""
