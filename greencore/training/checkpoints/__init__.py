"""Checkpoints without pickle, written atomically and verified when read."""
