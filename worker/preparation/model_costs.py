"""Step costs of a catalogue model for the API: FLOPs by row length, and each method's share of them."""

from typing import cast

from transformers import PreTrainedModel

from greencore.training.methods.baselines import (
    Baseline,
    BaselineError,
    find_query_value_projections,
    list_trained_tensors,
)
from greencore.training.methods.batch_shapes import StepShape, is_encoder_decoder
from greencore.training.methods.step_costs import StepCosts
from planning.compute_costs import RowCosts

REFERENCE_LENGTHS = (64, 512)
REFERENCE_ROWS = 4
ADAPTERS = ("lora", "prefix")
PARTIAL_METHODS = ("top2", "bitfit")


def compute_row_costs(model: PreTrainedModel, costs: StepCosts) -> RowCosts:
    """Return the FLOPs of a row as a function of its lengths, and each method's share of full fine-tuning's FLOPs.

    An adapter's share is approximated by training its model's deepest projection alone: the gradients reach as far,
    and the adapter adds little. Preparing a job computes its method's share exactly.
    """
    middle = StepShape(REFERENCE_ROWS, (sum(REFERENCE_LENGTHS) // 2,) * (2 if is_encoder_decoder(model) else 1))
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
    return RowCosts(forward=costs.fit_row_polynomial(()), full=costs.fit_row_polynomial(costs.tensors), methods=methods)


def _deepest_projection(model: PreTrainedModel, costs: StepCosts) -> str:
    weights = {f"{module}.weight" for module in find_query_value_projections(model)}
    return [name for name in costs.tensors if name in weights][-1]
