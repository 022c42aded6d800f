"""What a baseline's steps cost beside full fine-tuning's, before anything is trained."""

from collections.abc import Mapping
from typing import cast

from transformers import PreTrainedModel

from greencore.backprop.cost.by_length import Lengths
from greencore.training.methods.baselines import Baseline, list_trained_tensors
from greencore.training.methods.batch_shapes import StepShape
from greencore.training.methods.step_costs import StepCosts


def count_method_flops(
    method: Baseline,
    model: PreTrainedModel,
    full_costs: StepCosts,
    shapes: Mapping[StepShape, int],
    *,
    batch_size: int,
    shortest: Lengths,
    longest: Lengths,
) -> int:
    """Count the FLOPs of the steps by `method`; `full_costs` are those of the model, which may be on the meta device.

    "lora" and "prefix" add their adapter to the model. "progressive" counts as in its last epoch, its most expensive.
    Raises `BaselineError` for a model without a tensor that the method trains.
    """
    if method not in ("lora", "prefix"):
        return full_costs.count_flops(list_trained_tensors(method, model, epoch=0, epochs=1), shapes)[0]
    from greencore.training.methods.adapters import with_adapter

    adapted = with_adapter(method, model)
    own = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    costs = StepCosts(
        cast(PreTrainedModel, adapted), batch_size=batch_size, shortest=shortest, longest=longest, names=own
    )
    return costs.count_flops(own, shapes)[0]
