"""One thing that was looked at, how it stands, and how to mend it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """`found` says what is there, `mend` what to do where that is not enough; neither holds a secret."""

    name: str
    state: State
    found: str
    mend: str = ""
