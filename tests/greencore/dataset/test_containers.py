"""Reading of rows from every container: round trips, detection, and files that are damaged or expand without end."""

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.dataset import InvalidRow, row_from_object, row_to_object
from greencore.dataset.containers import (
    Container,
    FileFormat,
    ReadLimits,
    UnusableFile,
    hint_container,
    json_array,
    open_rows,
)
from greencore.dataset.containers.detection import Compression
from tests.row_files import COMPRESSIONS, CONTAINERS, two_columns_of_one_name

GZIP, ZSTD = COMPRESSIONS["gzip"], COMPRESSIONS["zstd"]
LIMITS = ReadLimits(rows=100, row_bytes=65_536, bytes=1_000_000)
BIG = 2 * LIMITS.bytes

UNUSABLE = [
    (GZIP(b"x" * BIG), "a.csv", "expands to more than 1000000 bytes"),
    (ZSTD(b" " * BIG), "a", "expands to more than 1000000 bytes"),
    (ZSTD(b"[" + b" " * BIG), "a", "expands to more than 1000000 bytes"),
    (GZIP(GZIP(b'{"text": "a"}')), "a", "is compressed twice"),
    (GZIP(b'{"text": "a"}\n')[:-4], "a", "cannot be decompressed as gzip"),
    (ZSTD(b'{"text": "a"}\n')[:-4], "a", "cannot be decompressed as zstd"),
    (GZIP(b'{"text": "a"}\n') + b"garbage", "a", "cannot be decompressed as gzip"),
    (b"\x1f\x8b", "a", "cannot be decompressed as gzip"),
    (b"\x28\xb5\x2f\xfd" + b"\xff" * 50, "a", "cannot be decompressed as zstd"),
    (b"[" * 500_000, "a", "element 1: not usable JSON"),
    (b'[{"text": ' * 50_000, "a", "element 1: not usable JSON"),
    (b"[" + b"9" * 50_000 + b"]", "a", "element 1: not usable JSON"),
    (b'[{"text": "a"}, {"text": "' + b"x" * 500_000, "a", "element 2: is longer than 65536 bytes"),
    (b'[{"text": "a"},\n {"text" "b"}]', "a", "element 2: Expecting ':' delimiter at line 2 column 10"),
    (b'[{"text": "a"}\n, ]', "a", "element 2: Expecting value at line 2 column 3"),
    (b'[{"text": "a"}', "a", "Expecting ',' or ']' at line 1 column 15"),
    (b'[{"text": "a"}] {}', "a", "Extra data after the array at line 1 column 17"),
    (b'[{"text": "\xff"}]', "a", "is not UTF-8: byte 11 cannot be decoded"),
    (b",".join(b"c%d" % number for number in range(100_000)), "a.csv", "line 1: is longer than 65536 bytes"),
    (b",".join(b"c%d" % number for number in range(5000)), "a.csv", "has 5000 columns: expected at most 1000"),
    (b"," * 5000, "a.csv", "has 5001 columns"),
    (b'text\na\n"b' + b"c\n" * 100_000, "a", "line 3: is longer than 65536 bytes"),
    (b'text\na\n"' + b"x" * 500_000, "a", "line 3: is longer than 65536 bytes"),
    (b"text\n" + b"x," * 50_000, "a", "line 2: is longer than 65536 bytes"),
    (b"text,b,text\n1,2,3\n", "a", "has several columns 'text'"),
    (two_columns_of_one_name(), "a", "has several columns 'text'"),
    (b'"text\n' * 3, "a.csv", "has no header that can be read"),
    (b"text,\xff\n1,2\n", "a", "has no header that can be read: not UTF-8: byte 5 of line 1"),
    (b"question;answer\n1;2\n", "a.csv", "its columns are ['question;answer']"),
]


def read(content: bytes, name: str = "rows") -> tuple[FileFormat, list[tuple[int, Any]]]:
    """Return the format of a file with this content, and its rows as objects with their numbers, or errors."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "rows")
        file.write_bytes(content)
        with open_rows(file, limits=LIMITS, hint=hint_container(name), folder=Path(folder)) as rows:
            found = [
                (number, row if isinstance(row, InvalidRow) else row_to_object(row)) for number, row, _ in rows.rows
            ]
        assert [path.name for path in Path(folder).iterdir()] == ["rows"]
        return rows.format, found


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
CONTENTS = TEXTS.filter(str.strip)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": CONTENTS}), max_size=3
).map(lambda messages: [*messages, {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
ROWS = st.one_of(
    st.lists(st.fixed_dictionaries({"prompt": TEXTS, "completion": CONTENTS}), min_size=1, max_size=4),
    st.lists(st.fixed_dictionaries({"text": CONTENTS}), min_size=1, max_size=4),
    st.lists(st.fixed_dictionaries({"messages": MESSAGES}), min_size=1, max_size=4),
)


@settings(deadline=None)
@given(rows=ROWS, container=st.sampled_from(sorted(CONTAINERS)), compression=st.sampled_from(sorted(COMPRESSIONS)))
def test_rows_survive_each_container_and_compression(
    rows: list[dict[str, Any]], container: str, compression: str
) -> None:
    found_format, found = read(COMPRESSIONS[compression](CONTAINERS[container](rows)), f"rows.{container}")

    assert found_format == FileFormat(Container(container), Compression(compression) if compression else None)
    assert [row for _, row in found] == [row_to_object(row_from_object(row, 1)) for row in rows]


@settings(deadline=None)
@given(rows=ROWS, chunk_bytes=st.integers(1, 50))
def test_an_array_is_read_alike_wherever_its_chunks_end(rows: list[dict[str, Any]], chunk_bytes: int) -> None:
    values: list[Any] = [*rows, 1234.5e-6, 'a\\"b', None, [{}]]
    content = json.dumps(values, indent=1).encode()
    whole = read(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "CHUNK_BYTES", chunk_bytes)
        in_chunks = read(content)

    def shown(found: list[tuple[int, Any]]) -> list[tuple[int, str]]:
        return [(number, str(row)) for number, row in found]

    assert shown(in_chunks[1]) == shown(whole[1])
    assert len(whole[1]) == len(values)


@settings(deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.text('[]{},"\\:\t\r\nae1 \ufeff', max_size=60).map(str.encode)))
def test_any_content_is_read_or_refused(content: bytes) -> None:
    for prefix in (b"", b"[", b"text\n", b"prompt\tcompletion\n", b"\x1f\x8b", b"PAR1"):
        with suppress(UnusableFile):
            read(prefix + content)


@pytest.mark.parametrize(("content", "name", "message"), UNUSABLE, ids=range(len(UNUSABLE)))
def test_a_file_that_is_damaged_or_a_bomb_is_refused_and_says_why(content: bytes, name: str, message: str) -> None:
    with pytest.raises(UnusableFile) as refused:
        read(content, name)

    assert message in str(refused.value)


def test_files_without_rows() -> None:
    for content in (b"[]", b" [ ] ", b"text\n", b"text,x\r\n\r\n", GZIP(b"") * 1000, GZIP(b"\n")):
        assert read(content)[1] == []
