"""Shares of full fine-tuning's FLOPs that the methods of `auto` take on a run's own rows."""

from functools import cache, cached_property
from typing import Literal

from transformers import PreTrainedModel

from greencore.backprop import TraceError
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.settings.method_choice import AUTO, ChosenMethod
from greencore.settings.method_settings import LoraSettings
from greencore.training.inputs import TrainingInputs
from greencore.training.methods.baselines import BaselineError, count_method_flops
from greencore.training.methods.lora_targets import resolve_lora_targets
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import enable_gradient_checkpointing, load_meta_model


def get_width(model: PreTrainedModel) -> int | None:
    """Return the width of the model's hidden states; None where its configuration has none."""
    width: int | None = getattr(model.config.get_text_config(), "hidden_size", None)
    return width


class MethodShares:
    """Measures each method's share on the run's rows, in batches laid out by its hyperparameters."""

    def __init__(self, inputs: TrainingInputs, hyperparameters: Hyperparameters, *, recomputes: bool) -> None:
        """Lay the batches out; with `recomputes` their steps recompute their blocks.

        `width` is that of the model's hidden states, None where its configuration has none. Raises
        `SettingUnsupported` where the batches cannot be laid out.
        """
        self._folder, self._hyperparameters = inputs.folder, hyperparameters
        self.recomputes = recomputes
        self.width = get_width(inputs.meta_model)
        layout = inputs.choose_layout(hyperparameters, AUTO)
        self._shapes = layout.measure_extremes(inputs.lengths, inputs.positions)
        self._count_lora_flops = cache(self._trace_lora)
        self._steps, _ = layout.count_shapes(inputs.lengths, inputs.positions)

    def measure(self, method: ChosenMethod, lora: LoraSettings | None) -> float | str:
        """Return the share of a method with these settings, or the reason why it cannot train the model.

        Raises `SettingUnsupported` for a target of LoRA that was given and that the model does not have.
        """
        if method == "full":
            return 1.0
        assert method == "lora"
        given = self._hyperparameters.lora
        try:
            return self.count_flops(method, lora) / self.count_flops("full", None)
        except (BaselineError, SettingUnsupported, TraceError) as error:
            if isinstance(error, SettingUnsupported) and given is not None and given.targets is not None:
                raise
            return str(error)

    def count_flops(self, method: Literal["full", "lora"], lora: LoraSettings | None) -> int:
        """Count the FLOPs of the laid-out steps by a method, each traced once. Raises as `count_method_flops`."""
        if method == "full":
            return self.full_costs.count_flops(self.full_costs.tensors, self._steps)
        assert lora is not None
        return self._count_lora_flops(lora)

    def _trace_lora(self, lora: LoraSettings) -> int:
        model = self._load_model()
        if not resolve_lora_targets(model, lora.targets):
            raise BaselineError(f"{type(model).__name__} has no linear module beside its output embedding")
        return count_method_flops("lora", model, self.full_costs, self._steps, self._shapes, lora=lora)

    @cached_property
    def full_costs(self) -> StepCosts:
        """Costs of the model as it is, without an adapter."""
        return StepCosts(self._load_model(), self._shapes)

    def _load_model(self) -> PreTrainedModel:
        model = load_meta_model(self._folder, attention=self._hyperparameters.attention)
        if self.recomputes:
            enable_gradient_checkpointing(model)
        return model
