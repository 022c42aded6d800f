"""Options that describe a run, shared by the commands that take one."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cli.options import (
    BatchSize,
    DatasetOption,
    Deadline,
    Epochs,
    EvalShare,
    LearningRate,
    MaxLength,
    MaxNewTokens,
    Metadata,
    MethodOption,
    Model,
    PolicyOption,
    Priority,
    PromptFormat,
    ResultForm,
    SamplePrompt,
    Seed,
    WeightDecay,
    ZoneOption,
)

if TYPE_CHECKING:
    from cli.remote.submission import RunRequest


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add a run's options before a command's own; it gets the parsed `RunRequest` as its first parameter."""
    options = inspect.signature(_run).parameters
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        run = _run(**{name: given.pop(name) for name in options})
        command(run, **given)

    # Typer reads the signature and the annotations.
    parameters = [*options.values(), *own]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _run(
    model: Model,
    dataset: DatasetOption,
    method: MethodOption = None,
    policy: PolicyOption = None,
    zone: ZoneOption = None,
    deadline: Deadline = None,
    priority: Priority = None,
    metadata: Metadata = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    max_length: MaxLength = None,
    prompt_format: PromptFormat = None,
    eval_share: EvalShare = None,
    max_new_tokens: MaxNewTokens = None,
    sample_prompt: SamplePrompt = None,
    seed: Seed = None,
    result: ResultForm = None,
) -> "RunRequest":
    from cli.remote.submission import parse_run_request

    return parse_run_request(
        model=model,
        dataset=dataset,
        method=method,
        policy=policy,
        zone=zone,
        deadline=deadline,
        priority=priority,
        metadata=metadata or (),
        hyperparameters={
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "max_length": max_length,
            "prompt_format": prompt_format,
            "eval_share": eval_share,
            "max_new_tokens": max_new_tokens,
            "sample_prompt": sample_prompt,
            "seed": seed,
            "result": result,
        },
    )
