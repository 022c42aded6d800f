"""Pricing of metered energy, counterfactual emissions of a job, and the causes of its savings."""
