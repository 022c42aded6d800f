"""Step costs of a catalogue model for the API: FLOPs by row length, and each method's share of them."""

from typing import cast

from transformers import PreTrainedModel

from greencore.training.batches.batch_shapes import BatchShapes, StepShape, is_encoder_decoder
from greencore.training.batches.learned_positions import takes_learned_positions
from greencore.training.methods.baselines import (
    Baseline,
    BaselineError,
    find_query_value_projections,
    list_trained_tensors,
)
from greencore.training.methods.method_shares import get_width
from greencore.training.methods.step_costs import StepCosts
from planning.compute_costs import RowCosts

REFERENCE_LENGTHS = (64, 512)
REFERENCE_LEARNED = (8, 128)  # tokens of a row of these lengths, where the model takes positions
REFERENCE_ROWS = 4
ADAPTERS = ("lora", "prefix")
PARTIAL_METHODS = ("top2", "bitfit")


def choose_reference_shapes(model: PreTrainedModel, max_length: int | None) -> BatchShapes:
    """Return the shapes at which a catalogue model is measured, within its positions."""
    shortest, longest = (
        min(length, (max_length or length) // share) for length, share in zip(REFERENCE_LENGTHS, (2, 1), strict=True)
    )
    if takes_learned_positions(model):
        least, most = (min(one, end) for one, end in zip(REFERENCE_LEARNED, (shortest, longest), strict=True))
        return BatchShapes(REFERENCE_ROWS, (shortest, least), (longest, most), learned_only=True)
    kinds = 2 if is_encoder_decoder(model) else 1
    return BatchShapes(REFERENCE_ROWS, (shortest,) * kinds, (longest,) * kinds)


def compute_lowest_floor(costs: StepCosts, shapes: BatchShapes) -> float:
    """Return the smallest ρ at which a tensor can be trained, of rows of which the least is learned.

    Preparing a job computes that of its own rows, at which every step stays within ρ.
    """
    if not shapes.learned_only:
        return costs.floor
    shape = StepShape(shapes.rows, (shapes.longest[0], shapes.shortest[1]))
    return min(costs.step_flops((name,), shape) for name in costs.tensors) / costs.full_flops(shape)


def compute_row_costs(model: PreTrainedModel, costs: StepCosts, shapes: BatchShapes) -> RowCosts:
    """Return the FLOPs of a row as a function of its lengths, and each method's share of full fine-tuning's FLOPs.

    An adapter's share is approximated by training its model's deepest projection alone: the gradients reach as far,
    and the adapter adds little. Preparing a job computes its method's share exactly.
    """
    middle = StepShape(
        shapes.rows, tuple((low + high) // 2 for low, high in zip(shapes.shortest, shapes.longest, strict=True))
    )
    methods: dict[str, float | str] = {"full": 1.0}
    for method in (*ADAPTERS, *PARTIAL_METHODS):
        try:
            names = (
                (_deepest_projection(model, costs),)
                if method in ADAPTERS
                else list_trained_tensors(cast(Baseline, method), model, epoch=0, epochs=1)
            )
        except BaselineError as error:
            methods[method] = f"unavailable: {error}"
        else:
            methods[method] = costs.step_flops(names, middle) / costs.full_flops(middle)
    return RowCosts(
        forward=costs.fit_row_polynomial(()),
        full=costs.fit_row_polynomial(costs.tensors),
        methods=methods,
        logits="learned" if shapes.learned_only else "all",
        width=get_width(model),
    )


def _deepest_projection(model: PreTrainedModel, costs: StepCosts) -> str:
    weights = {f"{module}.weight" for module in find_query_value_projections(model)}
    return [name for name in costs.tensors if name in weights][-1]
