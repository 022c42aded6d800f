"""Reads the operator's model catalogue from TOML: the only models that jobs may name."""

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path


class CatalogueError(ValueError):
    """The catalogue file is unreadable or invalid; the message names the file and the entry."""


@dataclass(frozen=True)
class CatalogueEntry:
    """A model that jobs may name. `source` is a folder, a GGUF file, or `package:NAME` for a GGUF inside a package."""

    name: str
    source: str
    licence: str
    description: str = ""


def read_catalogue(path: Path | None = None) -> dict[str, CatalogueEntry]:
    """Return the entries by name, from `path` or, where it is None, the built-in catalogue.

    A relative `source` is relative to the file's folder. Raises `CatalogueError`.
    """
    where = str(path) if path else "the built-in catalogue"
    try:
        content = path.read_text() if path else resources.files("runtime").joinpath("catalogue.toml").read_text()
        tables = tomllib.loads(content)
    except OSError as error:
        raise CatalogueError(f"{where}: cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{where}: {error}") from error
    entries = {}
    for name, table in tables.items():
        unknown = set(table) - {"source", "licence", "description"} if isinstance(table, dict) else {name}
        if unknown or not {"source", "licence"} <= set(table):
            raise CatalogueError(f"{where}: [{name}]: expected source, licence and optionally description")
        source = table["source"]
        if path and not source.startswith(("package:", "hub:")):
            source = str(path.parent / source)
        entries[name] = CatalogueEntry(name, source, table["licence"], table.get("description", ""))
    return entries
