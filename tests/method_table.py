"""A table of measured runs by which `auto` takes LoRA for few steps, and full fine-tuning for many."""

import json
from typing import Any

from greencore.settings.method_choice import parse_frontier

LORA = {"rank": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"}
TABLE: dict[str, Any] = {
    "model": "tiny",
    "width": 64,
    "data": "ten rows",
    "date": "2026-11-30",
    "seeds": 1,
    "runs": [
        {"epochs": 0.5, "steps": 50, "method": "full", "learning_rate": 3e-4, "loss": 2.9},
        {"epochs": 0.5, "steps": 50, "method": "lora", "learning_rate": 1e-3, "loss": 2.8, "lora": LORA},
        {"epochs": 1.0, "steps": 200, "method": "full", "learning_rate": 1e-4, "loss": 2.5},
        {"epochs": 1.0, "steps": 200, "method": "lora", "learning_rate": 1e-3, "loss": 2.6, "lora": LORA},
        {"epochs": 2.0, "steps": 400, "method": "full", "learning_rate": 1e-4, "loss": 2.7},
        {"epochs": 2.0, "steps": 400, "method": "lora", "learning_rate": 1e-3, "loss": 2.9, "lora": LORA},
    ],
}
FRONTIER = parse_frontier(json.dumps(TABLE))
