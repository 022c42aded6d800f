"""Options and arguments that several commands take, and decorators that add a group of them to a command."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, TypeVar

import typer

from cli.completion import complete_job, complete_policy
from cli.errors import SettingError

if TYPE_CHECKING:
    from greentune.client import Client

T = TypeVar("T")

DataDir = Annotated[Path | None, typer.Option(help="Folder that keeps everything (GREENTUNE_DATA_DIR).")]
Url = Annotated[
    str | None,
    typer.Option(
        envvar="GREENTUNE_URL",
        help="Where the service is; else the `greentune serve` that runs in the data folder, else port 8000 here.",
        rich_help_panel="Service",
    ),
]
Key = Annotated[
    str | None, typer.Option(envvar="GREENTUNE_KEY", help="A key of the service, gtk_…", rich_help_panel="Service")
]
AsJson = Annotated[bool, typer.Option("--json", help="Show JSON, and nothing else on stdout.")]
PolicyArgument = Annotated[str, typer.Argument(metavar="POLICY", help="A JSON file, or JSON in braces.")]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, job_…", autocompletion=complete_job, show_default=False)
]
JobArguments = Annotated[
    list[str], typer.Argument(metavar="JOB...", help="Ids of jobs, job_…", autocompletion=complete_job)
]
PolicyName = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a stored policy.", autocompletion=complete_policy)
]
ColumnOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="KEY=NAME",
        help="A row's key, and the file's column or path with dots that it is taken from, such as prompt=question; may "
        "be given several times.",
    ),
]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", help="KEY=VALUE for your own use; may be given several times.")
]


def _option(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)


def with_client(command: Callable[Concatenate["Client", ...], None]) -> Callable[..., None]:
    """Add `--url` and `--key` after a command's options; its first parameter is a client of that service."""
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def run(*, url: str | None, key: str | None, **given: Any) -> None:
        from cli.remote.connection import open_client

        with open_client(url, key) as client:
            command(client, **given)

    return _declare(run, [*own, _option("url", Url), _option("key", Key)])


def with_options_of(parse: Callable[..., Any], name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace a function's parameter `name` by the options of `parse`; its value is what `parse` returns for them."""
    options = inspect.signature(parse).parameters

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(command).parameters.values())
        place = [parameter.name for parameter in own].index(name)

        @functools.wraps(command)
        def run(*arguments: Any, **given: Any) -> Any:
            parsed = parse(**{option: given.pop(option) for option in options})
            return command(*arguments, **{name: parsed}, **given)

        return _declare(run, [*own[:place], *options.values(), *own[place + 1 :]])

    return decorate


@contextmanager
def report_path_errors(option: str) -> Iterator[None]:
    """Raise the block's errors of the file system as a `SettingError` that names the option."""
    try:
        yield
    except OSError as error:
        raise SettingError(f"{option}: {error.strerror}") from error


def is_file(given: str | Path, option: str) -> bool:
    """Return whether an option names a file. Raises `SettingError` where a name is too long, for one."""
    with report_path_errors(option):
        return Path(given).is_file()


def check_choice(option: str, given: str, choices: Collection[str]) -> None:
    """Raise `SettingError` for a value of an option that is not one of its choices."""
    if given not in choices:
        raise SettingError(f"{option}: {given!r} is not one of {', '.join(choices)}")


def _declare(run: Callable[..., T], parameters: list[inspect.Parameter]) -> Callable[..., T]:
    """Give a function the parameters that Typer reads as options and arguments."""
    # By keyword, so that their order is free: defaults before others, and options after keywords.
    by_keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__signature__ = inspect.Signature(by_keyword)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
