"""ROUGE before and after, as both the demonstration and `greentune train` show it."""

from collections.abc import Mapping

ROUGE_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def format_rouge(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Each measure in per cent, before and after."""
    return ", ".join(f"{name} {before[key]:.1f} → {after[key]:.1f}" for key, name in ROUGE_NAMES.items())
