"""Datasets: upload, validation and storage of training rows."""
