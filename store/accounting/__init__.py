"""Metered energy: attribution to jobs, pricing, and counterfactuals of finished jobs."""
