"""Table and plot of the frontier, from the runs that are kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib import pyplot

from benchmarks.training.frontier.arms import ARMS, BUDGETS, FrontierArm, PlannedRun
from benchmarks.training.frontier.findings import BASELINES
from benchmarks.training.frontier.runs import Frontier, Record
from greencore.training.evaluation.rouge import ROUGE_METRICS


def choose_rate(frontier: Frontier, arm: FrontierArm, budget: float, *, seed: int) -> float:
    """Return the learning rate with the lowest validation loss of those that were run; the first where none was."""
    losses = {rate: found["validation_loss"] for rate, found in find_rates(frontier, arm, budget, seed=seed).items()}
    return min(losses, key=losses.__getitem__, default=arm.rates[0])


def find_rates(frontier: Frontier, arm: FrontierArm, budget: float, *, seed: int) -> dict[float, Record]:
    """Return the kept run of each learning rate."""
    found = {rate: frontier.find(PlannedRun(arm, rate, seed, budget)) for rate in arm.rates}
    return {rate: record for rate, record in found.items() if record is not None}


def tabulate(frontier: Frontier, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each arm and budget that was run, at its best learning rate: means over seeds."""
    rows = []
    for arm in ARMS:
        for budget in BUDGETS:
            tried = find_rates(frontier, arm, budget, seed=seeds[0])
            if not tried:
                continue
            rate = choose_rate(frontier, arm, budget, seed=seeds[0])
            found = [frontier.find(PlannedRun(arm, rate, seed, budget)) for seed in seeds]
            runs = [record for record in found if record is not None]
            rows.append(
                {**_summarise(arm, budget, runs), "rates tried": len(tried), "runs": [*tried.values(), *runs[1:]]}
            )
    return rows


def _summarise(arm: FrontierArm, budget: float, runs: Sequence[Record]) -> dict[str, Any]:
    def average(name: str) -> float:
        return mean(float(run[name]) for run in runs)

    losses, scored = [run["validation_loss"] for run in runs], [run["rouge"] for run in runs if run["rouge"]]
    return {
        "arm": arm.name,
        "cache": arm.cache,
        "budget": budget,
        "FLOPs": average("epochs_of_full"),
        "rate": runs[0]["rate"],
        "steps": runs[0]["steps"],
        "validation loss": mean(losses),
        "first seed's loss": losses[0],
        "± sd": stdev(losses) if len(losses) > 1 else None,
        "R1/R2/RL": "/".join(f"{mean(each[name] for each in scored):.1f}" for name in ROUGE_METRICS)
        if scored
        else None,
        "CPU seconds": average("cpu_seconds"),
        "Wh": 1000 * average("energy_kwh"),
        "energy by": runs[0]["energy_method"],
    }


def state_steps(frontier: Frontier) -> list[str]:
    """State how many steps each budget of a half to two epochs pays for, which needs no training."""
    return [
        f"steps that a budget of {budget:g} pays for: "
        + ", ".join(f"{arm.name} {frontier.prices.choose_steps(arm, budget, seed=0)}" for arm in ARMS)
        for budget in BUDGETS[2:]
    ]


def state_filling(frontier: Frontier) -> list[str]:
    """State what the cache of each arm that finds one filled takes to fill."""
    return [
        f"to fill the cache of {arm.name} takes {frontier.prices.price_filling(arm):.3f} epochs of full fine-tuning"
        for arm in ARMS
        if arm.cache == "filled"
    ]


def format_rouge(scores: Sequence[Mapping[str, float]]) -> str:
    """Return the means of ROUGE-1, -2 and -L."""
    return "/".join(f"{mean(each[name] for each in scores):.1f}" for name in ROUGE_METRICS)


def plot(rows: Sequence[Mapping[str, Any]], untrained: float, file: Path) -> None:
    """Plot the validation loss against FLOPs in epochs of full fine-tuning, a line for each arm."""
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    colours = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for number, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
        own = [row for row in rows if row["arm"] == arm]
        axes.errorbar(
            [row["FLOPs"] for row in own],
            [row["validation loss"] for row in own],
            yerr=[row["± sd"] or 0 for row in own],
            marker="s" if arm in BASELINES else "o",
            linewidth=2.2 if arm in BASELINES else 1.2,
            linestyle="-" if arm in BASELINES else "--" if "above" in arm else ":" if arm.startswith("TRL") else "-.",
            color=colours[number % len(colours)],
            capsize=3,
            label=arm,
        )
    axes.set_xscale("log")
    ticks = [budget for budget in BUDGETS if any(row["budget"] == budget for row in rows)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("FLOPs, probes included, in epochs of full fine-tuning")
    axes.set_ylabel(f"validation loss (untrained: {untrained:.2f})")
    axes.legend(fontsize="small", ncols=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    pyplot.close(figure)
