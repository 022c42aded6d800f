"""View of a simulation in the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.figures import UNKNOWN
from greentune.models import Quantiles, Simulation


def show_simulation(found: Simulation) -> None:
    """Show the figures, the decisions of a single start, and their basis."""
    console = Console()
    console.print(_figures(found))
    if found.decisions:
        console.print(_decisions(found))
    basis = found.basis
    guessed = f", {basis.estimated_readings:,} of them estimates" if basis.estimated_readings else ""
    gaps = "" if basis.covered_share == 1 else f", {basis.covered_share:.1%} of that time covered"
    for line in (
        f"From {basis.readings:,} readings of {', '.join(basis.sources)}{guessed}, {basis.from_:%Y-%m-%d %H:%M} to "
        f"{basis.to:%Y-%m-%d %H:%M} UTC{gaps}. All figures are estimates:",
        *(f"  - {assumption}" for assumption in basis.assumptions),
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _figures(found: Simulation) -> Table:
    of = f" in {escape(found.basis.zone)}" if found.basis.zone else ""
    spread = found.spread
    if spread is None:
        title = f"One run{of}, ended {found.finish:%Y-%m-%d %H:%M} UTC"
        headers = ["gCO2e, estimated", "this run"]
        emissions = less_work = moved = ""
    else:
        title = f"{found.starts:,} runs{of}, one from every full hour"
        headers = ["gCO2e, estimated", "mean", "5 % to 95 % of the starts"]
        emissions = _range(spread.emissions_g, ",.1f")
        less_work, moved = _range(spread.less_work_saving, ".1%"), _range(spread.moved_in_time_saving, ".1%")
    reached = UNKNOWN if found.oracle_share is None else f"{found.oracle_share:.1%}"
    parts = (
        (
            ("under the policy", f"{found.emissions_g:,.1f}", emissions),
            ("all the work (ρ = 1), started at once", f"{found.baseline_g:,.1f}", ""),
            ("the same work, started at once", f"{found.constant_g:,.1f}", ""),
            ("the same work in the cleanest hours", f"{found.oracle_g:,.1f}", ""),
        ),
        (
            ("saved by less work", f"{found.less_work_saving:.1%}", less_work),
            ("saved by moving it in time", f"{found.moved_in_time_saving:.1%}", moved),
            ("share of the oracle's saving by timing", reached, ""),
        ),
        (
            ("work done", f"{found.work_share:.1%}", ""),
            ("epochs run", f"{found.epochs_run:.4g}", ""),
            ("ended by the deadline", f"{found.on_time_share:.1%}", ""),
        ),
    )
    table = Table(title=title, title_justify="left")
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left")
    for rows in parts:
        for row in rows:
            table.add_row(*row[: len(headers)])
        table.add_section()
    return table


def _range(quantiles: Quantiles, form: str) -> str:
    return f"{quantiles.p05:{form}} to {quantiles.p95:{form}}"


def _decisions(found: Simulation) -> Table:
    table = Table("time (UTC)", "gCO2e/kWh", "does", "ρ", "why")
    for decision in found.decisions:
        table.add_row(
            f"{decision.time:%Y-%m-%d %H:%M}",
            f"{decision.intensity:.4g}",
            decision.action,
            "" if decision.rho is None else f"{decision.rho:.4g}",
            decision.reason,
        )
    return table
