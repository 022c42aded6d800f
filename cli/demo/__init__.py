"""The demonstration: one job on a synthetic day, from an empty folder to a fine-tuned model."""
