"""Plots the pictures of docs/policies.md: ρ under each kind of policy, and the hours that each gate uses.

python -m benchmarks.carbon.policy_pictures
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.carbon.policies import POLICIES, POWER_W
from greencore.policy import (
    DEFAULT_UTILITY,
    Budget,
    Constant,
    Linear,
    Percentile,
    Policy,
    Price,
    Steps,
    budget_rhos,
    parse_policy,
    price_rho,
)
from greencore.policy.context import ASSUMED_LOSS_PER_EPOCH
from greencore.policy.gate.hours import find_best_window, select_cheapest_slots

FOLDER = Path(__file__).parents[2] / "docs" / "policies"

# Visible on a white and on a dark page.
GREY, MAIN, SECOND, THIRD = "#808080", "#2f9e63", "#4a86d8", "#d0812c"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "text.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "greentune",
    "font.family": "sans-serif",
}
WIDTH, HEIGHT = 3.6, 1.9
EPOCH_KWH = POWER_W / 1000
INTENSITY = "gCO2e/kWh"
GRID = "ES 2022"


def main(folder: Path = FOLDER) -> int:
    """Plot all pictures; the files are the same bytes on each run."""
    folder.mkdir(parents=True, exist_ok=True)
    for body in POLICIES[GRID][1:]:
        policy = parse_policy(body)
        with _picture(folder / f"{body['kind']}.svg") as axes:
            _plot(policy, axes)
    with _picture(folder / "gate.svg", height=2.4) as axes:
        _gates(axes)
    return 0


@contextmanager
def _picture(file: Path, height: float = HEIGHT) -> Iterator[Axes]:
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(WIDTH, height), layout="constrained")
        axes.set(ylim=(0, 1.06), yticks=[0, 0.5, 1], ylabel="ρ", xlabel=INTENSITY)
        yield axes
        figure.savefig(file, transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def _plot(policy: Policy, axes: Axes) -> None:
    match policy:
        case Constant() | Linear():
            intensity = np.linspace(0, 400, 401)
            axes.plot(intensity, policy.rho_at_intensities(intensity), color=MAIN, linewidth=2)
            if isinstance(policy, Linear):
                ticks = [0, policy.clean, policy.dirty]
                axes.set_xticks(ticks, ["0", f"clean\n{policy.clean:g}", f"dirty\n{policy.dirty:g}"])
        case Steps():
            _plot_steps(policy, axes)
        case Percentile():
            rank = np.linspace(0, 1, 101)
            for gamma, colour in ((3.0, SECOND), (policy.gamma, MAIN), (0.5, THIRD)):
                drawn = policy.model_copy(update={"gamma": gamma})
                axes.plot(100 * rank, drawn.rho_at_ranks(rank), color=colour, linewidth=2, label=f"gamma {gamma:g}")
            axes.set_xlabel(f"% of the last {policy.window_hours:g} h that was cleaner")
        case Budget():
            _plot_budget(policy, axes)
        case Price():
            _plot_price(policy, axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, loc="lower left", fontsize=8, handlelength=1.2, labelspacing=0.2, borderaxespad=0)


def _plot_steps(policy: Steps, axes: Axes) -> None:
    """Plot the steps; a dot marks that a bound belongs to the step below it."""
    bounds = [step.up_to for step in policy.steps if step.up_to is not None]
    for ends, step in zip(pairwise([0.0, *bounds, 400.0]), policy.steps, strict=True):
        axes.plot(ends, [step.rho, step.rho], color=MAIN, linewidth=2)
    axes.plot(bounds, [step.rho for step in policy.steps[:-1]], "o", color=MAIN, markersize=4)
    axes.set_xticks([0, *bounds])


def _plot_budget(policy: Budget, axes: Axes) -> None:
    """Plot ρ of 17 epochs at intensities over a range, for three budgets."""
    intensity = np.linspace(60, 380, 17)
    for budget, colour in ((1000.0, SECOND), (policy.budget_gco2e, MAIN), (620.0, THIRD)):
        plan = budget_rhos(
            DEFAULT_UTILITY, intensity * EPOCH_KWH, budget, rho_min=policy.rho_min, rho_max=policy.rho_max
        )
        assert bool(plan.feasible), f"{budget:g} gCO2e are too few for the picture"
        axes.plot(intensity, plan.rho, "o-", color=colour, markersize=3, linewidth=1.2, label=f"{budget:g} g")
    axes.set_xlabel(f"expected {INTENSITY} of each of 17 epochs")


def _plot_price(policy: Price, axes: Axes) -> None:
    intensity = np.linspace(0, 400, 201)
    for factor, colour in ((2, SECOND), (1, MAIN), (0.5, THIRD)):
        price = policy.gco2e_per_loss * factor
        cost = intensity * EPOCH_KWH
        rho = price_rho(DEFAULT_UTILITY, ASSUMED_LOSS_PER_EPOCH, cost, price, policy.rho_min, policy.rho_max)
        axes.plot(intensity, rho, color=colour, linewidth=2, label=f"{price:g} g per loss")


def _gates(axes: Axes) -> None:
    """Plot a synthetic grid of two different days, and the hours of 34 in which each gate does 17 h of work."""
    hour = np.arange(34)
    intensity = 220 - 90 * np.cos((hour - 1) / 12 * np.pi) + 40 * np.cos((hour - 30) / 34 * 2 * np.pi)
    work, one = np.array([17.0]), np.ones((1, 34))
    delay = float(find_best_window(intensity[None, :], one, one, work).delay_hours[0])
    used = {
        "pause": select_cheapest_slots(intensity[None, :], one, one, work).share[0],
        "defer": np.clip(hour + 1 - delay, 0, 1) * np.clip(delay + 17 - hour, 0, 1),
        "none": np.where(hour < 17, 1.0, 0.0),
    }
    axes.plot(hour + 0.5, intensity, color=GREY, linewidth=1.5)
    for row, (name, colour) in enumerate(zip(used, (MAIN, SECOND, THIRD), strict=True)):
        level = 60 - 50 * row
        begins = np.flatnonzero(np.diff(used[name] > 0.5, prepend=False, append=False)).reshape(-1, 2)
        axes.broken_barh([(begin, end - begin) for begin, end in begins.tolist()], (level - 17, 34), color=colour)
        axes.text(-0.7, level, name, ha="right", va="center", color=colour)
    axes.set(xlim=(0, 34), ylim=(-70, 370), yticks=[], ylabel="", xticks=[0, 17, 34], xlabel="hours from the start")
    axes.spines["left"].set_visible(False)
    axes.text(0.3, 345, INTENSITY, va="center")


if __name__ == "__main__":
    sys.exit(main())
