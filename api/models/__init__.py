"""The operator's catalogue of models."""
