"""Benchmarks the FLOP budget: requested ρ against the FLOPs of real steps, for every family, from the floor to 1."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, PreTrainedModel

from benchmarks.report import publish
from benchmarks.training.families import EAGER_ONLY, FAMILIES, build_model
from greencore.backprop import importance
from greencore.training.batches.batch_shapes import BatchShapes, StepShape
from greencore.training.methods.step_costs import StepCosts

LAYERS = 12
LAYERS_OF_EXPERTS = 36  # all experts of a layer are one tensor: with more layers each is a small part of the model
LAYER_COUNTS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
ROWS, TOKENS, TARGET = 2, 16, 12
STEP = 0.05
CLOSE = 0.01


def main() -> int:
    """Measure, print and write; return 1 where a check fails."""
    rows = [_measured(name) for name in FAMILIES]
    return publish(
        "budget",
        "Asked ρ against the share of full fine-tuning's FLOPs that real steps take",
        rows,
        columns=[name for name in rows[0] if name != "steps"],
        notes=[
            f"{LAYERS} layers each (experts: {LAYERS_OF_EXPERTS}), {ROWS} x {TOKENS} tokens; selected as in training by"
            " importance from a real probe and from a random draw, at the floor and at every multiple of 0.05 above it",
            "counted: FLOPs of a real forward and backward pass by torch's FlopCounterMode, over its count with every"
            " tensor trained; total: all FLOPs, also those that it does not count; neither may exceed ρ, so the larger"
            " one comes close to it",
            "most_above, most_below: of the larger of the two",
            "at the floor a single tensor is affordable, so that the last check does not apply to it",
        ],
        checks={
            "never above ρ, by either count": all(row["most_above"] <= 0 for row in rows),
            f"within {CLOSE:g} below ρ above the floor": all(row["most_below"] <= CLOSE for row in rows),
            "12 families or more": len(rows) >= 12,
        },
    )


def _measured(name: str) -> dict[str, Any]:
    model = _deep(name)
    encoder = bool(model.config.is_encoder_decoder)
    lengths = (TOKENS, TARGET) if encoder else (TOKENS,)
    costs = StepCosts(model, BatchShapes(ROWS, lengths, lengths))
    batch = _batch(int(model.config.vocab_size), encoder=encoder)
    shape = StepShape(ROWS, lengths)
    counted_full, total_full = _counted(model, batch, costs.tensors), costs.full_flops(shape)
    draw = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    importances: Mapping[str, dict[str, float]] = {
        "probe": importance(model, batch, optimizer),
        "random": {tensor: float(draw.lognormal()) for tensor in costs.tensors},
    }
    shares = [
        costs.floor,
        *(float(share) for share in np.arange(STEP, 1 + STEP / 2, STEP).round(2) if share > costs.floor),
    ]
    steps: list[dict[str, Any]] = []
    for source, worth in importances.items():
        for rho in shares:
            chosen = costs.select(worth, rho)
            counted = _counted(model, batch, chosen.names) / counted_full
            total = costs.step_flops(chosen.names, shape) / total_full
            steps.append(
                {"importance": source, "rho": rho, "counted": counted, "total": total, "chosen": len(chosen.names)}
            )
    apart = [step for step in steps if step["rho"] != costs.floor]
    return {
        "family": name,
        "tensors": len(costs.tensors),
        "floor": costs.floor,
        "selections": len(steps),
        "most_above": max(max(step["counted"], step["total"]) - step["rho"] for step in steps),
        "most_below": max(step["rho"] - max(step["counted"], step["total"]) for step in apart),
        "counted_below": max(step["rho"] - step["counted"] for step in apart),
        "total_below": max(step["rho"] - step["total"] for step in apart),
        "steps": steps,
    }


def _deep(name: str) -> PreTrainedModel:
    """Build the family's tiny model with enough layers that every tensor has less than a hundredth of its FLOPs."""
    config = AutoConfig.for_model(**FAMILIES[name])
    layers = LAYERS_OF_EXPERTS if hasattr(config, "num_local_experts") else LAYERS
    for count in LAYER_COUNTS:
        if hasattr(config, count):
            setattr(config, count, layers)
    if getattr(config, "layer_types", None):
        config.layer_types = (config.layer_types * layers)[:layers]
    torch.manual_seed(0)
    model = build_model(config, "eager" if name in EAGER_ONLY else "sdpa")
    model.train()
    return model


def _batch(vocabulary: int, *, encoder: bool) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocabulary, (ROWS, TOKENS), generator=draw)
    labels = torch.randint(3, vocabulary, (ROWS, TARGET), generator=draw) if encoder else ids.clone()
    return {"input_ids": ids, "labels": labels}


def _counted(model: PreTrainedModel, batch: Mapping[str, torch.Tensor], names: Collection[str]) -> int:
    """Count the FLOPs of a real step that trains only these tensors, by torch."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    model.zero_grad()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    sys.exit(main())
