"""Kinds of policy by intensity and by rank, with the base classes and fields of all kinds."""
