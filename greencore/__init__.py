"""Adaptive backpropagation steered by carbon intensity; knows no server, no database and no queue."""
