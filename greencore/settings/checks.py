"""Checks of hyperparameters against the rest of a job: its method, its processes, and whether rows are held out."""

from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported


def check_method(hyperparameters: Hyperparameters, method: str) -> None:
    """Raise `SettingUnsupported` for a setting that contradicts the method of the run.

    Under `auto` settings of LoRA are those that it has where it is chosen.
    """
    for field, owners in (("adaptive", ("greentrainer",)), ("lora", ("lora", "auto"))):
        if getattr(hyperparameters, field) is not None and method not in owners:
            hint = f": name {owners[0]} as the method, or leave them out" if method == "auto" else ""
            raise SettingUnsupported(
                field, f"given with the method {method}, and only {owners[0]} has these settings{hint}"
            )
    if method == "prefix" and hyperparameters.packing is True:
        raise SettingUnsupported("packing", "the prefix precedes only the first of the rows of a packed batch")
    if method == "prefix" and hyperparameters.gradient_checkpointing is True:
        raise SettingUnsupported("gradient_checkpointing", "recomputed blocks do not see the keys of a prefix")


def check_evaluation(hyperparameters: Hyperparameters, *, has_validation: bool) -> None:
    """Raise `SettingUnsupported` for a setting that needs evaluations of a run without held-out rows.

    `has_validation`: the run has a validation dataset.
    """
    if has_validation or hyperparameters.eval_share > 0:
        return
    needs_rows = {"early_stopping": hyperparameters.early_stopping is not None, "keep": hyperparameters.keep == "best"}
    for field, is_given in needs_rows.items():
        if is_given:
            message = "needs evaluations, and no row is held out: give a validation dataset, or an eval_share above 0"
            raise SettingUnsupported(field, message)


def check_processes(hyperparameters: Hyperparameters, processes: int) -> None:
    """Raise `SettingUnsupported` for a setting that a run in several processes, one on each GPU, does not support."""
    if processes == 1:
        return
    if hyperparameters.optimizer == "adafactor":
        raise SettingUnsupported("optimizer", "adafactor cannot step tensors of which each process holds a part")
    if hyperparameters.micro_batch_size == "auto":  # where memory runs out in one, the others would wait for it
        raise SettingUnsupported("micro_batch_size", "auto is measured in a run of one process: give a number of rows")
