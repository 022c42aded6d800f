"""Reads .env.example: each variable with its default, and whether it has to be written."""

import re
from dataclasses import dataclass
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / ".env.example"


@dataclass(frozen=True)
class Variable:
    """`optional` ones are shown behind a `#`; `explained` where a comment precedes it or its group."""

    value: str
    optional: bool
    explained: bool


def read_variables() -> dict[str, Variable]:
    """Every variable of the file by its name."""
    found: dict[str, Variable] = {}
    explained = False
    for line in EXAMPLE.read_text().splitlines():
        variable = re.fullmatch(r"(#?)([A-Z_]+)=(.*)", line)
        if variable:
            assert variable[2] not in found, f"{variable[2]} is there twice"
            found[variable[2]] = Variable(variable[3], optional=bool(variable[1]), explained=explained)
        else:
            assert not line or line.startswith("# "), line
            explained = bool(line) and not line.startswith("# ----")
    return found
