"""Training attempts of jobs under a lease."""
