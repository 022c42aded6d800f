"""Catalogue of models."""
