"""The time that a run's chat template reads: one reading for the whole run, kept across its stops."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from greencore.training.checkpoints.run_constants import load_or_create

CLOCK_FILE_NAME = "clock.json"


class TemplateClock:
    """Reads the time once, when a template first asks for it, and gives that reading from then on.

    With `file` the reading is kept there, so that a run which is stopped and resumed on another day renders the same
    text; a run whose template never reads the clock writes no file. The time is local and without a zone, as
    transformers gives it to templates.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._reading: datetime | None = None

    def read(self, now: Callable[[], datetime]) -> datetime:
        """Return the kept time, or what `now` gives where none is kept yet."""
        if self._reading is None:
            file = self._file
            reading = now() if file is None else load_or_create(file, lambda: now().isoformat(), datetime.fromisoformat)
            self._reading = reading
        return self._reading
