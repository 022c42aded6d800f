"""The REST interface and the dashboard; runs without torch."""
