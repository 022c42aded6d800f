"""`greentune submit` and `estimate`: a run, and what it would take."""

from typing import Annotated

import typer

from cli.options import (
    AsJson,
    BatchSize,
    DatasetOption,
    Deadline,
    Epochs,
    EvalShare,
    Key,
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
    Url,
    WeightDecay,
    ZoneOption,
)

app = typer.Typer()


@app.command()
def submit(
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
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end, as `greentune watch`.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Submit a fine-tuning run to the service, and show its id; rows that are a file are uploaded first."""
    from cli.remote.connection import service
    from cli.remote.submission import read_run
    from cli.remote.submission import submit as run_submission
    from cli.remote.watching import LOOK_SECONDS
    from cli.remote.watching import watch as run_watch

    run = read_run(
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
    with service(url, key) as client:
        job = run_submission(client, run, as_json=as_json and not watch)
        if watch:
            run_watch(client, job.id, seconds=LOOK_SECONDS, as_json=as_json)


@app.command()
def estimate(
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
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Say what a run would take and emit, now and in the best window; rows that are a file are uploaded for it."""
    from cli.remote.connection import service
    from cli.remote.estimate import estimate as run_estimate
    from cli.remote.submission import read_run

    run = read_run(
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
    with service(url, key) as client:
        run_estimate(client, run, as_json=as_json)
