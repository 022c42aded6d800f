"""Result of one check of `greentune doctor`, shared by every family of checks."""

from dataclasses import dataclass
from typing import Literal

CheckState = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """`found` describes what was found, `mend` how to fix it; neither contains a secret."""

    name: str
    state: CheckState
    found: str
    mend: str = ""
