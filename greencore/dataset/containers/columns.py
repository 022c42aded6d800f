"""Maps the fields of a file's objects to the keys of a row: `{"prompt": "question", "completion": "data.answer"}`."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from greencore.dataset.containers.limits import UnusableFile
from greencore.dataset.keys import FORM_KEYS, READ_KEYS, REFUSED_ROW_KEYS, explain_unread_key, find_form
from greencore.dataset.parsing import ROW_FORMS
from greencore.dataset.rows import InvalidRow
from greencore.dataset.values import Place, check_characters, shown

ROW_KEYS = frozenset[str]().union(*FORM_KEYS.values())
LONGEST_SOURCE = 200  # characters
MOST_NAMES = 10  # of a path
SHOWN_COLUMNS = 200  # characters of a table's columns in an error


@dataclass(frozen=True)
class ColumnMapping:
    """What the keys of a row are taken from: `sources` maps them to a name, or to a path of names joined by dots.

    A column whose name contains the dots comes before a path. Without `sources` an object is a row as it is; with
    them, its other fields keep their names, except that those of other forms of row have no value. What else is in an
    object that a path leads through has its own path as a name.
    """

    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: object) -> "ColumnMapping":
        """Return the mapping that a JSON value describes. Raises ValueError where it does not."""
        if not isinstance(value, Mapping):
            raise ValueError('expected an object such as {"prompt": "question", "completion": "answer"}')
        for key, source in value.items():
            if key not in ROW_KEYS:
                raise ValueError(f"{shown(key)} is no key of a row: expected {', '.join(sorted(ROW_KEYS))}")
            if not isinstance(source, str) or not source:
                raise ValueError(f"{key}: expected the name of a column")
            if len(source) > LONGEST_SOURCE or source.count(".") >= MOST_NAMES:
                raise ValueError(f"{key}: is longer than {LONGEST_SOURCE} characters, or {MOST_NAMES} names")
            check_characters(source, Place(0, key))
        if value and not any(keys.issuperset(value) for keys in FORM_KEYS.values()):
            raise ValueError(f"{', '.join(value)} are not keys of one form of row: {ROW_FORMS}")
        return cls(dict(value))

    def select_columns(self, names: Collection[str]) -> list[str]:
        """Return those columns of a table that are needed to read its rows.

        Raises `UnusableFile` where two have the same name, a mapped one is missing, or none is the key of a row.
        """
        repeated = next((name for name, number in Counter(names).items() if number > 1), None)
        if repeated is not None:
            raise UnusableFile(f"has several columns {repeated[:100]!a}")
        columns = f"its columns are {ascii(list(names))[:SHOWN_COLUMNS]}"
        used = set()
        for key, source in self.sources.items():
            column = _column_of(source, names)
            if column not in names:
                raise UnusableFile(f"has no column {source!a}, from which {key} is to be taken: {columns}")
            used.add(column)
        if not used and find_form(dict.fromkeys(names)) is None:
            raise UnusableFile(f"has no column of {ROW_FORMS}: {columns}")
        return [name for name in names if name in used or name in READ_KEYS]

    def map_object(self, value: Mapping[str, object]) -> Mapping[str, object]:
        """Return the object of a row; a source that `value` lacks leaves its key without a value."""
        if not self.sources:
            return value
        used = {_column_of(source, value) for source in self.sources.values()}
        others = {
            name: None if name in self._keys_of_other_forms else content
            for name, content in value.items()
            if name not in used
        }
        return others | self._find_unread(value) | {key: _find(value, source) for key, source in self.sources.items()}

    def find_refused(self, value: Mapping[str, object], line: int) -> InvalidRow | None:
        """Return the error of the first value beside a path that changes what is learned elsewhere, else None."""
        for path, content in self._find_unread(value).items():
            reason = explain_unread_key(path.rpartition(".")[2], content, read=self._own_keys)
            if reason is not None:
                return Place(line, ascii(path)[1:-1]).error(reason)
        return None

    def locate_error(self, error: InvalidRow, value: Mapping[str, object]) -> InvalidRow:
        """Return the error of a mapped object, by the source that `value` lacks or that is at fault."""
        key = re.split(r"[.\[]", error.field or "", maxsplit=1)[0]
        if key in self._keys_of_other_forms:  # no source has a value, so that the row was taken for another form
            key = ""
        for mapped, source in self.sources.items():
            column = ascii(source)[1:-1]
            if key in ("", mapped) and _find(value, source) is None:
                return InvalidRow(error.line, column, f"is missing: {mapped} is to be taken from it")
            if key == mapped:
                return InvalidRow(error.line, column + (error.field or "").removeprefix(key), error.message)
        return error

    @cached_property
    def _keys_of_other_forms(self) -> frozenset[str]:
        """Keys that only other forms of row have; those that are refused in this one stay, to be refused."""
        return ROW_KEYS - self._own_keys - REFUSED_ROW_KEYS.keys()

    @cached_property
    def _own_keys(self) -> frozenset[str]:
        """Keys of the forms of row that the sources belong to."""
        return frozenset[str]().union(*(keys for keys in FORM_KEYS.values() if keys.issuperset(self.sources)))

    def _find_unread(self, value: Mapping[str, object]) -> dict[str, object]:
        """Return the values by their paths that lie beside the sources, in the objects that these lead through."""
        read: set[str] = set()
        beside: dict[str, object] = {}
        for source in self.sources.values():
            within: object = value
            path = ""
            for name in () if source in value else source.split("."):
                if not isinstance(within, Mapping):
                    break
                if path:
                    beside |= {f"{path}.{inner}": content for inner, content in within.items()}
                path = f"{path}.{name}" if path else name
                read.add(path)
                within = within.get(name)
        return {path: content for path, content in beside.items() if path not in read}


AS_THEY_ARE = ColumnMapping()


def _column_of(source: str, names: Collection[str]) -> str:
    """Return the column that contains a source: the one of this name, or else the first name of its path."""
    return source if source in names else source.partition(".")[0]


def _find(value: Mapping[str, object], source: str) -> object:
    """Return what an object holds at a source, None for nothing."""
    if source in value:
        return value[source]
    found: object = value
    for name in source.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found
