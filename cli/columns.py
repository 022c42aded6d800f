"""The mapping of columns that `--column KEY=NAME` or a job file describes; used with a service and without."""

from collections.abc import Sequence

from cli.errors import SettingError
from greencore.dataset.containers import ColumnMapping

COLUMN_OPTION = "--column"


def parse_columns(given: Sequence[str] | None) -> dict[str, str]:
    """Return what `--column` options take each key from. Raises `SettingError`."""
    sources: dict[str, str] = {}
    for option in given or ():
        key, mark, source = option.partition("=")
        if not mark:
            raise SettingError(f"{COLUMN_OPTION}: {option!r}: expected KEY=NAME, such as prompt=question")
        if key in sources:
            raise SettingError(f"{COLUMN_OPTION}: {key} is given twice")
        sources[key] = source
    return sources


def map_columns(sources: object, *, where: str = COLUMN_OPTION) -> ColumnMapping:
    """Return the mapping of columns to be taken from `sources`. Raises `SettingError` that begins with `where`."""
    try:
        return ColumnMapping.parse(sources)
    except ValueError as error:
        raise SettingError(f"{where}: {error}") from error
