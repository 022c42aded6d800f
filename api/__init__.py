"""REST API and dashboard; runs without torch."""
