"""Evaluation on held-out rows: loss, perplexity and ROUGE."""
