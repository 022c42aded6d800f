"""Batches of tokenised rows: their layout and shapes, packing, positions, and where logits are computed."""
