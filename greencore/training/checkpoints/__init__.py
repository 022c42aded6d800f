"""Checkpoints without pickle: written atomically, verified, and read back."""
