"""mkdocs hook: writes the reference of the command line, from the commands themselves, where a page asks for it."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer

from cli.errors import EXIT_CODE_DESCRIPTIONS
from cli.main import app

MARK = "<!-- from the code: commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its mark replaced."""
    return markdown.replace(MARK, commands()) if MARK in markdown else markdown


def commands() -> str:
    """The exit codes, and every command with its arguments and options, as Markdown."""
    lines = ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| `{code.value}` | {meaning} |" for code, meaning in EXIT_CODE_DESCRIPTIONS.items()] + [""]
    for path, command in _commands("greentune", typer.main.get_command(app)):
        lines += _section(path, command)
    return "\n".join(lines)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands below one, with all the words that call each."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    if command.invoke_without_command:
        yield path, command
    for name, below in command.commands.items():
        if not below.hidden:
            yield from _commands(f"{path} {name}", below)


def _section(path: str, command: Any) -> list[str]:
    shown = [parameter for parameter in command.params if not parameter.hidden]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    options = ["[OPTIONS]"] if len(shown) > len(arguments) else []
    subcommand = ["[COMMAND]"] if hasattr(command, "commands") else []
    usage = " ".join([path, *map(_argument, arguments), *options, *subcommand])
    lines = [f"## {path}", "", f"`{usage}`", "", inspect.cleandoc(command.help or ""), ""]
    if shown:
        lines += ["| name | takes | default | what |", "|---|---|---|---|", *map(_row, shown)]
    return [*lines, ""]


def _argument(argument: Any) -> str:
    name = _name(argument) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _row(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif default is None or default is False or default == "" or callable(default):
        shown = "–"
    else:
        shown = f"`{default}`"
    cells = (f"`{_name(parameter)}`", _takes(parameter), shown, parameter.help or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _takes(parameter: Any) -> str:
    """What may follow an option, in words; nothing for one that is only named."""
    if getattr(parameter, "is_flag", False):
        return ""
    annotation = parameter.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    words = {"str": "text", "int": "a whole number", "float": "a number", "Path": "a path"}
    return words.get(getattr(annotation, "__name__", ""), "text") + (", repeatable" if parameter.multiple else "")
