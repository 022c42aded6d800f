"""`greentune train`: one training run in this process, without a service."""

import shutil
import warnings
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.figures import UNKNOWN
from cli.errors import CommandError, SettingError
from cli.hyperparameters import option_of
from cli.options import check_choice, report_path_errors
from cli.remote.figures import format_rouge
from greencore.backprop import BudgetTooSmall, NotFinite, TraceError
from greencore.dataset import InvalidRow, Row
from greencore.dataset.containers import (
    AS_THEY_ARE,
    ColumnMapping,
    LoadedRows,
    UnusableFile,
    format_invalid_row,
    hint_container,
    load_file,
)
from greencore.energy import EnergyInterval, EnergyMeter
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.settings.method_choice import (
    AUTO,
    MethodBudget,
    MethodChoice,
    MethodsUnavailable,
    choose_method,
    load_frontier,
)
from greencore.settings.run_length import compute_run_length
from greencore.training.batches.micro_batches import StepTooLarge
from greencore.training.batches.positions import MaxLengthExceeded
from greencore.training.data.held_out_rows import ValidationRowsUnusable
from greencore.training.data.tokenisation import MAX_NAMED_LINES
from greencore.training.evaluation.ledger import EvaluationReport
from greencore.training.inputs import prepare_inputs
from greencore.training.launch.launcher import ProcessesLost, fine_tune_in_processes
from greencore.training.listener import TrainingListener
from greencore.training.methods.baselines import Baseline, BaselineError
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.methods.method_shares import MethodShares
from greencore.training.models.loading import ModelError, resolve_model_folder
from greencore.training.run import Method, TrainingResult, fine_tune
from runtime.catalogue import read_catalogue
from runtime.settings import Settings


def train(
    model: str,
    dataset: Path,
    rho: float,
    hyperparameters: Hyperparameters,
    output: Path,
    settings: Settings,
    *,
    method: str,
    gpus: int = 1,
    validation_dataset: Path | None = None,
    columns: ColumnMapping = AS_THEY_ARE,
) -> None:
    """Fine-tune `model` on the rows of `dataset`, in which `columns` are mapped, and save it in `output`.

    The model is divided among `gpus` processes, one on each GPU. It is evaluated on the rows of `validation_dataset`,
    by default on a share of those of `dataset`. `model` is a catalogue name, a folder, a GGUF file or hub:NAME@COMMIT.

    Raises `SettingError` with the option at fault, and `CommandError` where training diverges; `output` is then
    removed, so that a corrected command can use it.
    """
    check_choice("--method", method, ("greentrainer", *get_args(Baseline), AUTO))
    with report_path_errors("--output"):
        is_filled = output.exists() and any(output.iterdir())
    if is_filled:
        raise SettingError(f"--output: {output} is not empty: name a new folder, so that nothing is overwritten")
    container, rows, ignored = _load_rows(dataset, columns)
    validation_rows = None
    if validation_dataset is not None:
        validation_rows = _load_rows(validation_dataset, columns, option="--validation-dataset").rows
    blamed: dict[type[Exception], str] = {
        BudgetTooSmall: "--rho",
        BaselineError: "--method",
        MethodsUnavailable: "--method",
        MaxLengthExceeded: "--max-length",
        SettingUnsupported: "",
        InvalidRow: f"--dataset: {dataset}",
        ValidationRowsUnusable: f"--validation-dataset: {validation_dataset}",
        ModelError: "--model",
        TraceError: "--model",
    }
    console = Console()
    if ignored:
        names = ", ".join(ascii(name)[1:-1] for name in ignored)
        console.print(f"not used of the rows: {names}", highlight=False, markup=False)
    try:
        with warnings.catch_warnings(), _ProgressDisplay(console, settings) as display:
            warnings.simplefilter("ignore")
            folder = resolve_model_option(model, settings)
            if method == AUTO:
                choice = _choose_method(folder, rows, validation_rows, hyperparameters, rho)
                method, hyperparameters = choice.method, choice.hyperparameters
                console.print(f"method {method}: {choice.reason}", soft_wrap=True, highlight=False, markup=False)
            run = fine_tune if gpus == 1 else partial(fine_tune_in_processes, gpus)
            result = run(
                model_folder=folder,
                model_name=model,
                rows=rows,
                validation_rows=validation_rows,
                hyperparameters=hyperparameters,
                rho=rho,
                method=cast(Method, method),
                folder=output,
                listener=display,
            )
    except (NotFinite, StepTooLarge, ProcessesLost) as error:
        shutil.rmtree(output, ignore_errors=True)
        raise CommandError(str(error)) from error
    except tuple(blamed) as error:
        shutil.rmtree(output, ignore_errors=True)  # no epoch has been trained
        option = next(option for kind, option in blamed.items() if isinstance(error, kind))
        if isinstance(error, SettingUnsupported):
            option = option_of(error.field) or ""
        reason = format_invalid_row(error, container) if isinstance(error, InvalidRow) else str(error)
        raise SettingError(f"{option}: {reason}") from error
    display.summarise(result)


def _choose_method(
    folder: Path,
    rows: Sequence[Row],
    validation_rows: Sequence[Row] | None,
    hyperparameters: Hyperparameters,
    rho: float,
) -> MethodChoice:
    """Choose the method for a budget of the run's length times ρ. Raises `MethodsUnavailable`."""
    inputs = prepare_inputs(folder, rows, validation_rows, hyperparameters, method=AUTO)
    length = compute_run_length(hyperparameters, training_rows=len(inputs.lengths))
    budget = MethodBudget(length.whole_epochs * rho, f"{length.whole_epochs:.3g} at ρ = {rho:g}")
    shares = MethodShares(inputs, hyperparameters, recomputes=hyperparameters.gradient_checkpointing is True)
    return choose_method(
        load_frontier(),
        budget,
        hyperparameters,
        shares.measure,
        steps_per_epoch=length.steps_per_epoch,
        width=shares.width,
    )


def _load_rows(dataset: Path, columns: ColumnMapping, *, option: str = "--dataset") -> LoadedRows:
    try:
        return load_file(dataset, columns=columns, hint=hint_container(dataset.name))
    except UnusableFile as error:
        raise SettingError(f"{option}: {dataset}: {error}") from error
    except OSError as error:
        raise SettingError(f"{option}: {dataset}: {error.strerror}") from error


def resolve_model_option(model: str, settings: Settings, *, option: str = "--model") -> Path:
    """Return the folder of safetensors of the model that an option names. Raises `SettingError` and `ModelError`."""
    catalogue = read_catalogue(settings.catalogue)
    if model in catalogue:
        return resolve_model_folder(catalogue[model].source, settings.models_dir / model)
    if model.startswith("hub:"):
        return resolve_model_folder(model, settings.models_dir / model.removeprefix("hub:").replace("/", "--"))
    with report_path_errors(option):
        is_there = Path(model).exists()
    if not is_there:
        raise SettingError(f"{option}: {model} is neither in the catalogue ({', '.join(catalogue)}) nor a path")
    return resolve_model_folder(model, settings.models_dir / Path(model).stem)


class _ProgressDisplay(TrainingListener):
    """Shows a progress bar during the run and a table after it; meters the energy of each epoch."""

    def __init__(self, console: Console, settings: Settings) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._task = self._progress.add_task("loading", total=None)
        self._meter = EnergyMeter(
            self._record_energy, cpu_power_w=settings.cpu_power_w, ram_power_w=settings.ram_power_w
        )
        self._epoch: int | None = None
        self._energy_kwh: defaultdict[int | None, float] = defaultdict(float)
        self._methods = ""
        self._losses: list[tuple[float, float | None]] = []
        self._evaluations: list[EvaluationReport] = []
        self._evaluating, self._evaluation_kwh = False, 0.0

    def __enter__(self) -> "_ProgressDisplay":
        self._meter.__enter__()
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        self._meter.__exit__(*error)  # type: ignore[arg-type]

    def on_training_started(
        self, *, steps: int, steps_done: int, epochs_done: int, within_epoch: bool, device: str, precision: str
    ) -> None:
        self._meter.close_interval()
        self._epoch = epochs_done
        self._progress.update(self._task, total=steps, description=f"training on {device}, {precision}")

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self._progress.update(self._task, completed=done, description=f"loss {loss:.3f}")

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self._meter.close_interval()
        self._losses.append((train_loss, eval_loss))
        self._epoch = report.epoch + 1

    def on_evaluation_started(self) -> None:
        self._meter.close_interval()
        self._evaluating = True

    def on_evaluation_ended(self) -> None:
        self._meter.close_interval()
        self._evaluating = False

    def on_evaluated(self, report: EvaluationReport) -> None:
        self._evaluations.append(report)
        if report.epoch_ended is None:
            self._console.print(f"step {report.step}: held-out loss {report.evaluation.loss:.3f}")

    def _record_energy(self, interval: EnergyInterval) -> None:
        if self._evaluating:
            self._evaluation_kwh += interval.energy_kwh
        self._energy_kwh[self._epoch] += interval.energy_kwh
        self._methods = f"CPU: {interval.cpu_method}, GPU: {interval.gpu_method}, memory: {interval.ram_method}"

    def summarise(self, result: TrainingResult) -> None:
        table = Table("epoch", "ρ asked", "FLOPs share", "tensors", "loss", "held-out loss", "kWh", "probe s")
        for report, (train_loss, eval_loss) in zip(result.epochs, self._losses, strict=True):
            table.add_row(
                str(report.epoch + 1),
                f"{report.rho:.2f}",
                f"{report.share:.4f}",
                f"{len(report.tensors)}/{report.tensors_total}",
                f"{train_loss:.3f}",
                UNKNOWN if eval_loss is None else f"{eval_loss:.3f}",
                f"{self._energy_kwh[report.epoch]:.6f}",
                f"{report.probe_seconds:.1f}",
            )
        self._console.print(table)
        energy = f"{sum(self._energy_kwh.values()):.6f} kWh in all, {self._evaluation_kwh:.6f} of it in evaluations"
        self._console.print(f"energy: {energy} ({self._methods})", soft_wrap=True)
        if result.stopped_early:
            self._console.print(result.stopped_early, soft_wrap=True)
        if self._evaluations:
            best = min(self._evaluations, key=lambda report: report.evaluation.loss)
            weights = f"the result has the weights after step {result.step}"
            self._console.print(f"best evaluation: loss {best.evaluation.loss:.3f} after step {best.step}; {weights}")
        if result.before and result.after and result.before.rouge and result.after.rouge:
            marks = format_rouge(result.before.rouge, result.after.rouge)
            self._console.print(f"{marks} on {result.after.rows} held-out rows", soft_wrap=True)
        if result.dropped_lines:
            lines = ", ".join(map(str, result.dropped_lines[:MAX_NAMED_LINES]))
            more = " and more" if len(result.dropped_lines) > MAX_NAMED_LINES else ""
            several = len(result.dropped_lines) > 1
            dropped = f"{_count_rows(len(result.dropped_lines))} not used, since nothing is learned of"
            named = f"{dropped} {'them: lines' if several else 'it: line'} {lines}{more}"
            self._console.print(named, soft_wrap=True)
        if result.held_out_duplicates:
            kept_out = f"{_count_rows(result.held_out_duplicates)} not held out, since equal rows are trained on"
            self._console.print(kept_out, soft_wrap=True)
        self._console.print(f"model: {result.artifact}", soft_wrap=True)


def _count_rows(rows: int) -> str:
    return f"{rows} row was" if rows == 1 else f"{rows} rows were"
