"""Tokenisation of rows: prompt formats, chat templates, special tokens, held-out rows."""
