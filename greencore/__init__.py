"""Adaptive backpropagation steered by carbon intensity; independent of the server, the database and the queue."""
