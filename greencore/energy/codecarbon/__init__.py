"""Adapter of CodeCarbon, the only code that uses its private members."""
