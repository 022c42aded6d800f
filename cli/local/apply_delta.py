"""`greentune apply-delta`: rebuilds the full model from a base and a delta; separate since it imports torch."""

from pathlib import Path

import transformers
import typer

from cli.errors import SettingError
from cli.local.train import resolve_model_option
from cli.options import is_file, report_path_errors
from greencore.training.models.delta import DeltaError, apply_delta
from greencore.training.models.loading import ModelError
from runtime.settings import Settings


def apply(base: str, delta: Path, output: Path, settings: Settings) -> None:
    """Write the model of `base` and `delta` to the folder `output`; `base` is named as for `greentune train`.

    Raises `SettingError` with the option at fault; then nothing has been written.
    """
    with report_path_errors("--output"):
        is_there = output.exists()
    if is_there:
        raise SettingError(f"--output: {output} is there already: name a new folder, so that nothing is overwritten")
    if not is_file(delta, "--delta"):
        raise SettingError(f"--delta: there is no file {delta}")
    transformers.utils.logging.disable_progress_bar()
    try:
        folder = apply_delta(resolve_model_option(base, settings, option="--base"), delta, output)
    except DeltaError as error:
        raise SettingError(f"--delta: {error}") from error
    except ModelError as error:
        raise SettingError(f"--base: {error}") from error
    except OSError as error:
        raise SettingError(f"--output: {output}: {error.strerror}") from error
    typer.echo(f"model: {folder}")
