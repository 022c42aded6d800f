"""Tokenisation of rows: prompt formats, chat templates, special tokens, positions, packing."""
