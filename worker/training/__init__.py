"""Running one attempt of a job under its lease."""
