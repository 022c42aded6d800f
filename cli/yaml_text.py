"""YAML 1.2's core schema, read and written with PyYAML: "NO" and "on" are texts, and 1e-4 is a number.

PyYAML has YAML 1.1, which reads the zone NO as false.
"""

import json
import re
from typing import Any

import yaml  # type: ignore[import-untyped]

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_DIGITS = list("-+.0123456789")


class YamlError(ValueError):
    """The text is not YAML that can be used; the message has the line."""


def parse_yaml(text: str) -> Any:
    """Return the values of a YAML or JSON text. Raises `YamlError`, also for a repeated key or an alias."""
    try:
        value = _parse_json(text)
        if value is None:
            value = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise YamlError("holds half a surrogate pair, which is no character") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise YamlError(f"{where}{error.problem or error.context}") from error
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise YamlError(f"not YAML or JSON: {' '.join(str(error).split())}") from error


def format_yaml(value: Any) -> str:
    """Return values as YAML that `parse_yaml` reads back."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _parse_json(text: str) -> Any:
    """Return the value of a JSON text, None of any other: PyYAML reads an escaped pair of surrogates as two halves."""
    constants: list[str] = []
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=constants.append)
    except (json.JSONDecodeError, RecursionError):  # so is YAML that begins with a key such as NaN
        return None
    if constants:
        raise YamlError(f"{constants[0]} is no number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise YamlError(f"{repeated!r} is there twice")
    return found


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Knows the core schema, and refuses what a file of settings has no use for."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes texts in quotes where `_Loader` would read something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: Any, text: str) -> Any:
    """Escape what is not printable, as PyYAML loses some line separators in other styles."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


def _number(loader: Any, node: Any) -> float:
    return float(node.value)


for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {}
    _kind.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])
    _kind.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    _kind.add_implicit_resolver("tag:yaml.org,2002:int", _INT, _DIGITS)
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _DIGITS)
_Dumper.add_representer(str, _represent_text)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
