"""Metered energy in the database: who used it, its price, and what a finished job saved."""
