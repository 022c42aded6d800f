"""Describes a run's recipe (batches, schedule, optimiser) in one line, for the estimate and the model card."""

from greencore.settings.hyperparameters import Hyperparameters


def describe_recipe(hyperparameters: Hyperparameters) -> str:
    """Return the recipe in words: length, rows a step, learning rate over the steps, optimiser, clipping."""
    return "; ".join(
        part(hyperparameters) for part in (_describe_length, _describe_rows, _describe_rate, _describe_optimizer)
    )


def _describe_length(given: Hyperparameters) -> str:
    if given.max_steps is not None:
        return _count(given.max_steps, "step")
    return _count(given.epochs, "epoch")


def _describe_rows(given: Hyperparameters) -> str:
    rows = f"{_count(given.batch_size, 'row')} a step"
    if given.micro_batch_size == "auto":
        return f"{rows}, as many at once as memory holds"
    return rows if given.micro_batch_size is None else f"{rows}, {given.micro_batch_size} at once"


def _describe_rate(given: Hyperparameters) -> str:
    warmup = ""
    if given.warmup_steps:
        warmup = f" after {_count(given.warmup_steps, 'step')} of warm-up"
    elif given.warmup_ratio:
        warmup = f" after a warm-up of {given.warmup_ratio:.3g} of the steps"
    least = f", down to {given.min_lr_ratio:g} of it" if given.min_lr_ratio else ""
    return f"learning rate {given.learning_rate:g}, {given.scheduler}{warmup}{least}"


def _describe_optimizer(given: Hyperparameters) -> str:
    own = ""
    if given.optimizer == "adamw":
        own = f" (β {given.adam_beta1:g}, {given.adam_beta2:g})"
    elif given.optimizer == "sgd":
        own = f" (momentum {given.sgd_momentum:g})"
    clipping = f"gradients clipped to {given.max_grad_norm:g}" if given.max_grad_norm else "no clipping"
    return f"{given.optimizer}{own}, weight decay {given.weight_decay:g}, {clipping}"


def _count(number: int | None, unit: str) -> str:
    return f"{number} {unit}{'s' if number != 1 else ''}"
