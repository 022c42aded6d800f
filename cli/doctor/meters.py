"""RAPL check of `greentune doctor`: whether the processor's energy can be read, or is estimated."""

import os
from collections.abc import Iterator
from pathlib import Path

from cli.doctor.check import CheckResult

POWERCAP = Path("/sys/class/powercap")
COUNTER = "energy_uj"


def run_checks(powercap: Path = POWERCAP) -> Iterator[CheckResult]:
    """The counters of every package; a virtual machine has none as a rule."""
    counters = sorted(powercap.glob(f"*rapl*/{COUNTER}"))
    if not counters:
        yield CheckResult(
            "rapl",
            "warning",
            f"no counter in {powercap}: the processor's energy is estimated",
            "set GREENTUNE_CPU_POWER_W to the processor's measured power, where it is known",
        )
        return
    closed = [counter for counter in counters if not os.access(counter, os.R_OK)]
    if closed:
        yield CheckResult(
            "rapl",
            "warning",
            f"{closed[0]} cannot be read by this user: the processor's energy is estimated",
            f"sudo chmod -R a+r {closed[0].parent.resolve()} (again after each start of the machine), "
            "or run the worker as a user who may read it",
        )
    else:
        yield CheckResult("rapl", "ok", f"{len(counters)} counters of the processor can be read")
