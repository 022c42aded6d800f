"""Hyperparameters as options: one for each setting of their schema, which is read once a command with them is used."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from cli.errors import SettingError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from greencore.settings.fields import SettingField
    from greencore.settings.hyperparameters import Hyperparameters

COMMON_TITLE = "Training"
PLAIN_TYPES: Mapping[tuple[str, ...], type] = {("integer",): int, ("number",): float}
PARAMETER = "hyperparameters"

HyperparameterOptions = Annotated[Any, typer.Option(parser=str)]
"""The parameter of a `HyperparameterCommand` that receives the settings given, nested as in the schema."""


class HyperparameterCommand(TyperCommand):
    """A command with an option for every hyperparameter, in place of its parameter `hyperparameters`."""

    def __init__(self, *arguments: Any, **given: Any) -> None:
        super().__init__(*arguments, **given)
        self._own = [parameter for parameter in self.params if parameter.name != PARAMETER]
        del self.params

    def __getattr__(self, name: str) -> Any:
        """Build `params` at their first use, so that other commands do not import the schema."""
        if name != "params":
            raise AttributeError(name)
        self.params = [*self._own, *setting_options(_schema())]
        return self.params

    def invoke(self, ctx: Any) -> Any:
        """Run the command with the settings that were given as one value."""
        names = {parameter.name for parameter in self._own}
        given = {name: ctx.params.pop(name) for name in [*ctx.params] if name not in names}
        ctx.params[PARAMETER] = parse_settings(given, _schema())
        return super().invoke(ctx)


def setting_options(model: type["BaseModel"]) -> list[Any]:
    """Return the options of all settings of a model, without defaults, in a panel for each group."""
    from greencore.settings.fields import list_setting_groups

    parameters = [
        inspect.Parameter(
            _parameter_name(field), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(field, panel)
        )
        for group in list_setting_groups(model)
        for panel in [group.title or COMMON_TITLE]
        for field in group.fields
    ]

    def take(**_: Any) -> None:
        """Has the parameters that Typer reads."""

    take.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    take.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(take)
    return list(typer.main.get_command(app).params)


def parse_settings(given: Mapping[str, Any], model: type["BaseModel"]) -> dict[str, Any]:
    """Return the settings that were given, nested as in the model, from the values of `setting_options`.

    Raises `SettingError` for a number that is not finite, which JSON cannot hold.
    """
    from greencore.settings.fields import list_settings

    found: dict[str, Any] = {}
    for field in list_settings(model):
        value = given.get(_parameter_name(field))
        if value is not None:
            within = found
            for name in field.path[:-1]:
                within = within.setdefault(name, {})
            parsed = field.parse(value) if isinstance(value, str) else value
            if isinstance(parsed, float) and not math.isfinite(parsed):
                raise SettingError(f"{_option_name(field.path)}: {parsed} is not a finite number")
            within[field.name] = parsed
    return found


def option_of(path: str) -> str | None:
    """Return the option of the hyperparameter at a path such as `lora.targets[2]`; None if there is none.

    A path that names a whole group has the beginning of its options.
    """
    from greencore.settings.fields import list_setting_groups

    names = path.partition("[")[0].split(".")
    for group in list_setting_groups(_schema()):
        if any(list(field.path) == names[: len(field.path)] for field in group.fields):
            return _option_name(names)
        if group.path and list(group.path) == names:
            return f"--{names[0].replace('_', '-')}-…"
    return None


def validate_hyperparameters(
    given: Mapping[str, Any], name_path: Callable[[str], str] | None = None
) -> "Hyperparameters":
    """Return the hyperparameters of a mapping. Raises `SettingError`, with a line for each option at fault.

    `name_path` names what is at a path, by default its option.
    """
    from pydantic import ValidationError

    from greencore.settings.validation_faults import describe_fault, merge_union_faults

    try:
        return _schema().model_validate(given)
    except ValidationError as error:
        name = name_path or (lambda path: option_of(path) or path or PARAMETER)
        faults = (f"{name(_path_of(fault))}: {describe_fault(fault)}" for fault in merge_union_faults(error.errors()))
        raise SettingError("\n".join(faults)) from error


def _path_of(fault: Mapping[str, Any]) -> str:
    return ".".join(part for part in fault["loc"] if isinstance(part, str))


@cache
def _schema() -> type["Hyperparameters"]:
    from greencore.settings.hyperparameters import Hyperparameters

    return Hyperparameters


def _option_name(path: Sequence[str]) -> str:
    return "--" + "-".join(path).replace("_", "-")


def _parameter_name(field: "SettingField") -> str:
    return "_".join(field.path)


def _annotation(field: "SettingField", panel: str) -> Any:
    kind: Any = str
    if field.choices:
        kind = Literal[field.choices]
    elif not field.words:
        kind = PLAIN_TYPES.get(field.types, str)
    text = "; ".join(
        part for part in (field.hint, f"default {field.shown_default}" if field.shown_default else "") if part
    )
    return Annotated[kind | None, typer.Option(help=text, rich_help_panel=panel)]
