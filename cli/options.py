"""Options and arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from cli.completion import complete_job, complete_policy, complete_zone

DataDir = Annotated[Path | None, typer.Option(help="Folder that keeps everything (GREENTUNE_DATA_DIR).")]
Url = Annotated[
    str | None,
    typer.Option(
        envvar="GREENTUNE_URL",
        help="Where the service is; else the `greentune serve` that runs in the data folder, else port 8000 here.",
        rich_help_panel="Service",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(envvar="GREENTUNE_KEY", help="A key of the service, gtk_…", rich_help_panel="Service"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Show JSON, and nothing else on stdout.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Show a line of JSON for each change, and nothing else.")]
PolicyArgument = Annotated[str, typer.Argument(metavar="POLICY", help="A JSON file, or JSON in braces.")]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, job_…", autocompletion=complete_job, show_default=False)
]
JobArguments = Annotated[
    list[str], typer.Argument(metavar="JOB...", help="Ids of jobs, job_…", autocompletion=complete_job)
]
PolicyName = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a stored policy.", autocompletion=complete_policy)
]

Model = Annotated[str, typer.Option(help="A name in the service's catalogue; `greentune models` shows them.")]
DatasetOption = Annotated[
    str, typer.Option("--dataset", help="A file of rows, JSON Lines or Parquet, to upload; or the id of an upload.")
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="A stored policy's name, a JSON file, or JSON in braces; else ρ = 0.6 at once.",
        autocompletion=complete_policy,
    ),
]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="greentrainer, full, lora, prefix, top2 or bitfit; else greentrainer.")
]
ZoneOption = Annotated[
    str | None,
    typer.Option("--zone", help="Where to run; else any zone with a worker.", autocompletion=complete_zone),
]
Deadline = Annotated[
    str | None,
    typer.Option(help="When it has to be over: ISO 8601 (UTC without an offset), or from now, as +12h, +90m or +2d."),
]
Priority = Annotated[int | None, typer.Option(help="From -100 to 100: higher ones start first.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", help="KEY=VALUE for your own use; may be given several times.")
]
Training = "Training"
PromptFormat = Annotated[
    str | None, typer.Option(help="plain, tldr, summarize or chat.", rich_help_panel=Training, show_default=False)
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the rows.", rich_help_panel=Training)]
BatchSize = Annotated[int | None, typer.Option(help="Rows of an optimiser step.", rich_help_panel=Training)]
LearningRate = Annotated[float | None, typer.Option(help="AdamW's peak learning rate.", rich_help_panel=Training)]
WeightDecay = Annotated[float | None, typer.Option(help="AdamW's weight decay.", rich_help_panel=Training)]
MaxLength = Annotated[int | None, typer.Option(help="Tokens of a row.", rich_help_panel=Training)]
EvalShare = Annotated[
    float | None, typer.Option(help="Share of rows held out for evaluation.", rich_help_panel=Training)
]
MaxNewTokens = Annotated[
    int | None, typer.Option(help="Tokens of a completion in the evaluation.", rich_help_panel=Training)
]
SamplePrompt = Annotated[
    str | None, typer.Option(help="A prompt to complete before and after training.", rich_help_panel=Training)
]
Seed = Annotated[int | None, typer.Option(help="Of every choice at random.", rich_help_panel=Training)]
ResultForm = Annotated[
    str | None,
    typer.Option("--result", help="full, or delta: only what changed, for apply-delta.", rich_help_panel=Training),
]
