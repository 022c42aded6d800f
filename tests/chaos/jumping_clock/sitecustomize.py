"""Shifts a Python process's wall clock by the seconds in the file at CLOCK_OFFSET, which each call reads."""

import os
import time
from datetime import timedelta
from pathlib import Path

_FILE = Path(os.environ["CLOCK_OFFSET"])
_time = time.time


def _offset() -> float:
    return float(_FILE.read_text() or 0)


time.time = lambda: _time() + _offset()

import greencore.clock  # noqa: E402

_utc_now = greencore.clock.utc_now
greencore.clock.utc_now = lambda: _utc_now() + timedelta(seconds=_offset())
