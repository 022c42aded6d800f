"""The result of one check of `greentune doctor`: what was found and how to fix it. Shared by every family of checks."""

from dataclasses import dataclass
from typing import Literal

CheckState = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """`found` says what is there, `mend` what to do where that is not enough; neither holds a secret."""

    name: str
    state: CheckState
    found: str
    mend: str = ""
