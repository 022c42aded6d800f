"""Shares of full fine-tuning's FLOPs that the methods of `auto` take on a run's own rows."""

from functools import cached_property

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


class MethodShares:
    """Measures each method's share on the run's rows, in batches laid out by its hyperparameters."""

    def __init__(self, inputs: TrainingInputs, hyperparameters: Hyperparameters) -> None:
        """Lay the batches out; `width` is that of the model's hidden states, None where its configuration has none.

        Raises `SettingUnsupported` where they cannot be laid out.
        """
        self._folder, self._hyperparameters = inputs.folder, hyperparameters
        self.width: int | None = getattr(inputs.meta_model.config.get_text_config(), "hidden_size", None)
        layout = inputs.choose_layout(hyperparameters, AUTO)
        self._shapes = layout.measure_extremes(inputs.lengths, inputs.positions)
        self._steps, _ = layout.count_shapes(inputs.lengths, inputs.positions)

    def measure(self, method: ChosenMethod, lora: LoraSettings | None) -> float | str:
        """Return the share of a method with these settings, or the reason why it cannot train the model.

        Raises `SettingUnsupported` for a target of LoRA that was given and that the model does not have.
        """
        if method == "full":
            return 1.0
        assert method == "lora"
        assert lora is not None
        model = self._load_model()
        given = self._hyperparameters.lora
        try:
            if not resolve_lora_targets(model, lora.targets):
                return f"{type(model).__name__} has no linear module beside its output embedding"
            spent = count_method_flops(method, model, self._full_costs, self._steps, self._shapes, lora=lora)
        except (BaselineError, SettingUnsupported, TraceError) as error:
            if given is not None and given.targets is not None:
                raise
            return str(error)
        return spent / self._full_costs.count_flops(self._full_costs.tensors, self._steps)

    @cached_property
    def _full_costs(self) -> StepCosts:
        return StepCosts(self._load_model(), self._shapes)

    def _load_model(self) -> PreTrainedModel:
        model = load_meta_model(self._folder, attention=self._hyperparameters.attention)
        if self._hyperparameters.gradient_checkpointing is True:
            enable_gradient_checkpointing(model)
        return model
