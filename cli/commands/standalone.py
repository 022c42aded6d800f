"""`greentune serve`, `demo`, `train`, `apply-delta`, `migrate` and `doctor`: commands that need no running service."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from cli.columns import COLUMN_OPTION, map_columns, parse_columns
from cli.errors import SettingError
from cli.hyperparameters import HyperparameterCommand, HyperparameterOptions, option_of, validate_hyperparameters
from cli.job_file import SERVICE_KEYS, ConfigOption, read_constant_rho, read_gpus, read_job_file
from cli.options import AsJson, ColumnOptions, DataDir, Key, Url

app = typer.Typer()

Host = Annotated[str | None, typer.Option(help="Address to listen on (GREENTUNE_HOST).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on (GREENTUNE_PORT).", min=1, max=65535)]


@app.command()
def serve(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run the whole service in this terminal until Ctrl-C.

    It starts PostgreSQL and Valkey, unless DATABASE_URL or REDIS_URL name servers to use instead.
    """
    from cli.configuration import read_settings
    from cli.stack.serve import serve as run

    run(read_settings(host=host, port=port, data_dir=data_dir), print_line=_print_line)


@app.command()
def demo(data_dir: DataDir = None) -> None:
    """Fine-tune a small language model under a carbon policy on a synthetic day, show its cost, and stop."""
    from cli.configuration import read_settings
    from cli.demo.run import run

    run(read_settings(data_dir=data_dir))


@app.command(cls=HyperparameterCommand)
def train(
    model: Annotated[
        str | None, typer.Option(help="A name in the catalogue, a model's folder, a GGUF file, or hub:NAME@COMMIT.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="JSON Lines, a JSON array, CSV, TSV or Parquet.")] = None,
    validation_dataset: Annotated[
        Path | None, typer.Option(help="File of rows to evaluate on, in place of a share of the rows.")
    ] = None,
    column: ColumnOptions = None,
    rho: Annotated[
        float | None, typer.Option(help="Share of full fine-tuning's FLOPs, above 0 and at most 1; default 0.6.")
    ] = None,
    output: Annotated[Path, typer.Option(help="New folder for checkpoints and the result.")] = Path("out"),
    method: Annotated[
        str | None,
        typer.Option(help="greentrainer, a baseline that the paper compares with, or auto; default greentrainer."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(help="Processes that the model is divided among, one on each GPU; else 1.", min=1)
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDir = None,
    hyperparameters: HyperparameterOptions = None,
) -> None:
    """Fine-tune on this machine, without a service; of a constant policy in the file its ρ is used."""
    file = read_job_file(config)
    given = {
        "model": model,
        "dataset": None if dataset is None else str(dataset),
        "validation_dataset": None if validation_dataset is None else str(validation_dataset),
        "columns": parse_columns(column) or None,
        "method": method,
        "hyperparameters": hyperparameters,
    }
    body = file.merge_run(given)
    chosen_method = body.get("method", "greentrainer")
    if rho is None:
        reads_rho = chosen_method in ("greentrainer", "auto")
        rho = read_constant_rho(file) if reads_rho else 1.0
    if not 0 < rho <= 1:
        raise SettingError(f"--rho: {rho} is not above 0 and at most 1")

    def where(path: str) -> str:
        option = option_of(path) or path
        return file.where(f"hyperparameters.{path}" if path else "hyperparameters", given=given, option=option)

    chosen = validate_hyperparameters(body.get("hyperparameters", {}), where)
    if "validation_dataset" in body and body.get("hyperparameters", {}).get("eval_share"):
        raise SettingError(f"{where('eval_share')}: given beside --validation-dataset: expected one of them")
    from greencore.device import MAX_GPUS
    from greencore.settings.checks import check_evaluation, check_method, check_processes
    from greencore.settings.hyperparameters import SettingUnsupported

    chosen_gpus = read_gpus(file) if gpus is None else gpus
    if not 1 <= chosen_gpus <= MAX_GPUS:
        place = "--gpus" if gpus is not None else f"{config}: resources.gpus"
        raise SettingError(f"{place}: {chosen_gpus}: expected 1 to {MAX_GPUS}")
    try:
        check_method(chosen, chosen_method)
        check_processes(chosen, chosen_gpus)
        check_evaluation(chosen, has_validation="validation_dataset" in body)
    except SettingUnsupported as error:
        raise SettingError(f"{where(error.field)}: {error}") from error
    if unused := [key for key in SERVICE_KEYS if key in file.body]:
        typer.echo(f"{config}: not used without a service: {', '.join(unused)}", err=True)
    columns = map_columns(body.get("columns", {}), where=file.where("columns", given=given, option=COLUMN_OPTION))
    from cli.configuration import read_settings
    from cli.extras import require_extras

    require_extras("train", "training")
    from cli.local.train import train as run

    run(
        body["model"],
        Path(body["dataset"]),
        rho,
        chosen,
        output,
        read_settings(data_dir=data_dir),
        method=chosen_method,
        gpus=chosen_gpus,
        validation_dataset=Path(body["validation_dataset"]) if "validation_dataset" in body else None,
        columns=columns,
    )


@app.command("apply-delta")
def apply_delta(
    base: Annotated[str, typer.Option(help="The model that was trained, named as for `train`.")],
    delta: Annotated[Path, typer.Option(help="The delta.safetensors of a result.")],
    output: Annotated[Path, typer.Option(help="New folder for the full model.")],
    data_dir: DataDir = None,
) -> None:
    """Build the full fine-tuned model from its base and a delta; bit-identical to a full result of the run."""
    from cli.configuration import read_settings
    from cli.extras import require_extras

    require_extras("apply-delta", "training")
    from cli.local.apply_delta import apply

    apply(base, delta, output, read_settings(data_dir=data_dir))


@app.command()
def migrate() -> None:
    """Migrate the database at DATABASE_URL to this version's schema."""
    from cli.configuration import read_settings
    from cli.stack.preconditions import report_database_errors
    from migrations.upgrade import upgrade

    with report_database_errors():
        upgrade(read_settings().database_url)
    _print_line("database: migrated")


@app.command()
def doctor(
    online: Annotated[bool, typer.Option("--online", help="Also request each zone's carbon source once.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Check what the service needs on this machine, and say how to fix what is missing.

    Exits with 1 where a check fails. Secrets are never shown.
    """
    from cli.configuration import read_settings
    from cli.doctor.run import run_doctor

    run_doctor(read_settings(data_dir=data_dir), url=url, key=key, online=online, as_json=as_json)


def _print_line(line: str) -> None:
    """Show a line; a terminal that was closed is no reason to leave processes behind."""
    with suppress(OSError):
        typer.echo(line)
