"""The `greentune` command. Nothing here imports torch: commands that train load it when they run."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from typer.core import TyperGroup

from cli.errors import CommandError, SettingError
from greencore.hyperparameters import Hyperparameters
from store.settings import Settings


class Commands(TyperGroup):
    """Shows an expected error as one message on stderr, and ends with its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError as error:
            typer.echo(f"greentune: {error}", err=True)
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    cls=Commands,
    help="Fine-tune language models with adaptive backpropagation, as much and when the grid's carbon allows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

policy_app = typer.Typer(help="Check a policy, and hold it against a recorded past.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")

keys_app = typer.Typer(
    help="Make, list and revoke API keys: at DATABASE_URL with GREENTUNE_SECRET_KEY, or beside a running `serve`.",
    no_args_is_help=True,
)
app.add_typer(keys_app, name="keys")

Host = Annotated[str | None, typer.Option(help="Address to listen on (GREENTUNE_HOST).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on (GREENTUNE_PORT).", min=1, max=65535)]
DataDir = Annotated[Path | None, typer.Option(help="Folder that keeps everything (GREENTUNE_DATA_DIR).")]
PolicyArgument = Annotated[str, typer.Argument(metavar="POLICY", help="A JSON file, or JSON in braces.")]


@app.command()
def serve(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run the whole service in this terminal until Ctrl-C.

    PostgreSQL and Valkey come with it, unless DATABASE_URL or REDIS_URL name servers to use instead.
    """
    from cli.serve import serve as run

    run(read_settings(host=host, port=port, data_dir=data_dir), say=say)


@app.command()
def demo(data_dir: DataDir = None) -> None:
    """Fine-tune a small language model under a carbon policy on a synthetic day, show what it cost, and stop."""
    from cli.demo.run import run

    run(read_settings(data_dir=data_dir))


@app.command()
def train(
    model: Annotated[
        str, typer.Option(help="A name in the catalogue, a model's folder, a GGUF file, or hub:NAME@COMMIT.")
    ],
    dataset: Annotated[Path, typer.Option(help="Rows as JSON Lines.")],
    rho: Annotated[float, typer.Option(help="Share of full fine-tuning's FLOPs, above 0 and at most 1.")] = 0.6,
    output: Annotated[Path, typer.Option(help="New folder for checkpoints and the result.")] = Path("out"),
    method: Annotated[str, typer.Option(help="greentrainer, or one of the baselines that the paper compares with.")] = (
        "greentrainer"
    ),
    prompt_format: Annotated[str | None, typer.Option(help="plain, tldr, summarize or chat.")] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a row.")] = None,
    eval_share: Annotated[float | None, typer.Option(help="Share of rows held out for evaluation.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    result: Annotated[str | None, typer.Option(help="full, or delta: only what changed, for apply-delta.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Fine-tune in this process, without any service."""
    if not 0 < rho <= 1:
        raise SettingError(f"--rho: {rho} is not above 0 and at most 1")
    hyperparameters = _hyperparameters(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_length=max_length,
        prompt_format=prompt_format,
        eval_share=eval_share,
        seed=seed,
        result=result,
    )
    from cli.train import method_named
    from cli.train import train as run

    run(model, dataset, rho, hyperparameters, output, read_settings(data_dir=data_dir), method=method_named(method))


@app.command("apply-delta")
def apply_delta(
    base: Annotated[str, typer.Option(help="The model that was trained, named as for `train`.")],
    delta: Annotated[Path, typer.Option(help="The delta.safetensors of a result.")],
    output: Annotated[Path, typer.Option(help="New folder for the whole model.")],
    data_dir: DataDir = None,
) -> None:
    """Make the whole fine-tuned model of its base and a delta, bit by bit what the run would have saved."""
    from cli.apply_delta import apply

    apply(base, delta, output, read_settings(data_dir=data_dir))


@app.command()
def migrate() -> None:
    """Bring the database at DATABASE_URL to the schema of this version."""
    from sqlalchemy.exc import OperationalError

    from migrations.upgrade import upgrade

    try:
        upgrade(read_settings().database_url)
    except ValueError as error:
        raise SettingError(str(error)) from error
    except OperationalError as error:
        raise SettingError(f"DATABASE_URL: PostgreSQL cannot be used: {error.orig}") from error
    say("database: migrated")


@policy_app.command("check")
def check_policy(policy: PolicyArgument) -> None:
    """Show a policy with its defaults, or every fault in it."""
    from cli.policy import check

    check(policy)


@policy_app.command("simulate")
def simulate_policy(
    policy: PolicyArgument,
    trace: Annotated[Path, typer.Option(help="CSV of intensities: datetime, gco2e_per_kwh; or Electricity Maps'.")],
    work_hours: Annotated[float, typer.Option(help="The run's length at ρ = 1.")],
    epochs: Annotated[int, typer.Option(help="Equal parts of the run.")],
    zone: Annotated[str | None, typer.Option(help="What to call the trace's zone.")] = None,
    deadline_hours: Annotated[
        float | None, typer.Option(help="From the start; without it the gate's max_delay_hours count.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="A time; without it every full hour of the trace.")] = None,
    forecast: Annotated[str, typer.Option(help="What the gate plans by: own, persistence or perfect.")] = "own",
    power_w: Annotated[float, typer.Option(help="Drawn while it computes.")] = 300.0,
    idle_power_w: Annotated[float, typer.Option(help="Drawn while it waits or pauses.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Show what POST /policies/simulate answers.")] = False,
) -> None:
    """Say what a policy would have emitted on a recorded past. Needs no service."""
    from cli.policy import simulate

    simulate(
        policy,
        trace,
        zone=zone,
        work_hours=work_hours,
        epochs=epochs,
        deadline_hours=deadline_hours,
        start=start,
        forecast=forecast,
        power_w=power_w,
        idle_power_w=idle_power_w,
        as_json=as_json,
    )


@keys_app.command("create")
def create_key(
    owner: Annotated[str, typer.Option(help="Whose jobs and datasets the key sees.")],
    role: Annotated[
        Literal["user", "operator"], typer.Option(help="An operator's key sees everything, and makes keys.")
    ] = "user",
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    days: Annotated[
        float | None, typer.Option(help="It works for so long; without it, until it is revoked.", min=0, max=36500)
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key, and show it this once."""
    from cli.keys import create

    create(read_settings(data_dir=data_dir), owner=owner, role=role, name=name, days=days)


@keys_app.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """Show every key without its text: id, first characters, role, owner, and whether it can be used."""
    from cli.keys import show

    show(read_settings(data_dir=data_dir))


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `greentune keys list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Take a key out of use for good."""
    from cli.keys import revoke

    revoke(read_settings(data_dir=data_dir), key_id)


def read_settings(**options: Any) -> Settings:
    """Settings from the environment, with the options that were given on top.

    Raises `SettingError` that names each option or variable that is wrong.
    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        raise SettingError(f"{_variable(field[1] if field else '*', ())}: expected JSON") from error
    except ValidationError as error:
        faults = [f"{_variable(str(fault['loc'][0]), fault['loc'][1:])}: {fault['msg']}" for fault in error.errors()]
        raise SettingError("\n".join(faults)) from error


def _hyperparameters(**options: Any) -> Hyperparameters:
    try:
        return Hyperparameters(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        faults = [f"--{str(fault['loc'][0]).replace('_', '-')}: {fault['msg']}" for fault in error.errors()]
        raise SettingError("\n".join(faults)) from error


def say(line: str) -> None:
    """Show a line; a terminal that is gone is no reason to leave processes behind."""
    with suppress(OSError):
        typer.echo(line)


def _variable(name: str, within: tuple[int | str, ...]) -> str:
    variable = name if name.isupper() else f"GREENTUNE_{name}".upper()
    return ".".join([variable, *map(str, within)])


if __name__ == "__main__":
    app()
