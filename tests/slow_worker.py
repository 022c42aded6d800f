"""A training worker that takes four times as long for each step: time for a test to act in, and no core taken by it.

Run as a module with the worker's arguments, `python -m tests.slow_worker train`.
"""

import sys
import time
from typing import Any

from worker.__main__ import main
from worker.training.step_log import StepLog

SLOWDOWN = 4
LONGEST_PAUSE_SECONDS = 0.2

add = StepLog.add
ended = time.monotonic()


def add_slowly(log: StepLog, **step: Any) -> None:
    global ended
    time.sleep(min((SLOWDOWN - 1) * (time.monotonic() - ended), LONGEST_PAUSE_SECONDS))
    ended = time.monotonic()
    add(log, **step)


if __name__ == "__main__":
    StepLog.add = add_slowly  # type: ignore[assignment, method-assign]
    main(sys.argv[1:])
