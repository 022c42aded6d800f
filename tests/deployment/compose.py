"""Reads YAML, and docker-compose.yml as Compose does: anchors merged, variables replaced."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\})")
SECONDS = {"s": 1, "m": 60, "h": 3600}


def read_yaml(file: Path) -> Any:
    """What a YAML file holds."""
    return yaml.safe_load(file.read_text())


@cache
def services() -> Mapping[str, Any]:
    """Every service by its name, with the defaults of the variables that it names."""
    found: Mapping[str, Any] = _replaced(read_yaml(COMPOSE_FILE))["services"]
    return found


def variables() -> set[str]:
    """What the file takes from the environment or .env, whether in braces or as a name without a value."""
    content = read_yaml(COMPOSE_FILE)
    in_braces = {found["name"] for found in VARIABLE.finditer(COMPOSE_FILE.read_text()) if found["name"]}
    passed = {
        name
        for service in content["services"].values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    return in_braces | passed


def seconds(duration: str) -> float:
    """A duration such as `1m30s`."""
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([smh])", duration))


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: "$" if not found["name"] else _default(found), value)
    if isinstance(value, dict):
        return {key: _replaced(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    return value


def _default(found: re.Match[str]) -> str:
    return str(found["rest"]) if found["kind"] == "-" else ""
