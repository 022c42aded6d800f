"""Report of the demonstration's job: its costs, what the model learned, and where it is stored."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from api.figures import UNKNOWN
from cli.remote.figures import format_rouge
from greentune.models import Artifact, Epoch, Job


def show_result(
    console: Console, job: Job, epochs: Sequence[Epoch], artifacts: Sequence[Artifact], folder: Path
) -> None:
    """Print the epochs, the totals, what the model learned, and its folder, which holds the artifacts."""
    console.print()
    console.print(_table(job, epochs))
    flops, full = _flops(epochs)
    probes = sum(epoch.probe_flops or 0.0 for epoch in epochs)
    if full:
        console.print(
            f"Less work: {flops / full:.1%} of the FLOPs of training every tensor, and {probes / full:.1%} more "
            "to find out which. Moved in time: nothing, since this policy has no gate."
        )
    console.print(f"How the energy was found: {_methods(job)}.")
    _show_learning(console, job.evaluation or {})
    console.print(f"\nThe model is in {folder}:")
    for artifact in artifacts:
        console.print(f"  {artifact.name} ({artifact.bytes:,} bytes)")
    console.print("To load it:")
    console.print("  from transformers import AutoModelForCausalLM")
    console.print(f'  AutoModelForCausalLM.from_pretrained("{folder}")')
    console.print(
        "To download it, start the service with `greentune serve`; then, with a key, for each of those files:"
    )
    console.print(
        f"  curl -O -H 'Authorization: Bearer gtk_…' http://127.0.0.1:8000/jobs/{job.id}/artifacts/model.safetensors"
    )


def _table(job: Job, epochs: Sequence[Epoch]) -> Table:
    flops, full = _flops(epochs)
    # Header, footer and the cell of an epoch.
    columns: tuple[tuple[str, str, Callable[[Epoch], str]], ...] = (
        ("epoch", "all", lambda epoch: str(epoch.number)),
        ("gCO2e/kWh", "", lambda epoch: _number(epoch.intensity.gco2e_per_kwh, ".0f")),
        ("ρ asked", "", lambda epoch: _number(epoch.rho_asked, ".2f")),
        ("FLOPs share", f"{flops / full:.4f}" if full else "", lambda epoch: _number(epoch.rho_reached, ".4f")),
        ("loss", "", lambda epoch: _number(epoch.train_loss, ".4f")),
        ("kWh", f"{job.energy_kwh:.6f}", lambda epoch: _number(_energy_kwh(epoch), ".6f")),
        ("gCO2e", _number(job.known_gco2e, ".4f"), lambda epoch: _number(epoch.emissions_gco2e, ".4f")),
    )
    title = f"{job.model} on {job.device}, intensity: a synthetic day, not a real grid"
    table = Table(title=title, title_justify="left", show_footer=True)
    for header, footer, _ in columns:
        table.add_column(header, footer, justify="right")
    for epoch in epochs:
        table.add_row(*(cell(epoch) for *_, cell in columns))
    # What was metered outside of the epochs: loading, evaluating before and after, saving.
    around_kwh = job.energy_kwh - sum(_energy_kwh(epoch) or 0.0 for epoch in epochs)
    around_gco2e = job.emissions_gco2e - sum(epoch.emissions_gco2e or 0.0 for epoch in epochs)
    emissions = _number(None if job.unpriced_kwh else around_gco2e, ".4f")
    table.add_row("around", "", "", "", "", f"{around_kwh:.6f}", emissions, end_section=True)
    return table


def _energy_kwh(epoch: Epoch) -> float | None:
    return None if epoch.energy is None else epoch.energy.total_kwh


def _flops(epochs: Sequence[Epoch]) -> tuple[float, float]:
    """Return the FLOPs of all epochs, and those with every tensor trained."""
    return sum(epoch.flops or 0.0 for epoch in epochs), sum(epoch.full_flops or 0.0 for epoch in epochs)


def _show_learning(console: Console, evaluation: Mapping[str, Any]) -> None:
    rouge = evaluation.get("rouge")
    if rouge and rouge["before"] and rouge["after"]:
        marks = format_rouge(rouge["before"], rouge["after"])
        console.print(f"\nOn {evaluation['rows']} rows held back from training: {marks}.")
    sample = evaluation.get("sample")
    if sample:
        console.print("One prompt that was not among the rows:")
        for label in ("prompt", "before", "after"):
            # One line each, whatever the model writes.
            console.print(f"  {label:<7} {' ⏎ '.join(sample[label].strip().splitlines())}")


def _methods(job: Job) -> str:
    methods = job.emissions_basis.energy_methods if job.emissions_basis is not None else {}
    return ", ".join(f"{part}: {' and '.join(ways)}" for part, ways in methods.items()) or "none was metered"


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)
