"""The mapping of a file's columns that `--column KEY=NAME` describes; used by commands with a service and without."""

from collections.abc import Sequence

from cli.errors import SettingError
from greencore.dataset.containers import ColumnMapping


def parse_columns(given: Sequence[str] | None) -> ColumnMapping:
    """Parse `--column` options into a mapping. Raises `SettingError`."""
    sources: dict[str, str] = {}
    for option in given or ():
        key, mark, source = option.partition("=")
        if not mark:
            raise SettingError(f"--column: {option!r}: expected KEY=NAME, such as prompt=question")
        if key in sources:
            raise SettingError(f"--column: {key} is given twice")
        sources[key] = source
    try:
        return ColumnMapping.parse(sources)
    except ValueError as error:
        raise SettingError(f"--column: {error}") from error
