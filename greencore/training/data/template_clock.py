"""Clock of chat templates: one reading for a whole run, kept when it is stopped and resumed."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from greencore.training.checkpoints.run_constants import load_or_create

CLOCK_FILE_NAME = "clock.json"


class TemplateClock:
    """Clock that is read once, when a template first asks for the time, and then stays fixed.

    The reading is stored in `file`, so that a run resumed on another day renders the same text; a template that never
    reads the clock writes no file. The time is local and naive, as transformers gives it to templates.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._reading: datetime | None = None

    def read(self, now: Callable[[], datetime]) -> datetime:
        """Return the stored time, or that of `now` at the first call."""
        if self._reading is None:
            file = self._file
            reading = now() if file is None else load_or_create(file, lambda: now().isoformat(), datetime.fromisoformat)
            self._reading = reading
        return self._reading
