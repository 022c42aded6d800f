"""Parquet uploads: conversion to JSON Lines, and files that are damaged, misdeclared or expand beyond the limits."""

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient

from api.datasets.isolation import convert_file
from api.main import create_app
from greencore.dataset.containers import ColumnMapping, ReadLimits, UnusableFile
from runtime.settings import Settings
from tests.keys import bearer

LIMITS = ReadLimits(1000, 2**20, 2**30)
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Grüß Gott"}]


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    """Return a Parquet file of these columns."""
    content = BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), content, **options)
    return content.getvalue()


def test_every_form_of_rows_becomes_json_lines_in_the_file_s_order(upload: Any, settings: Settings) -> None:
    content = parquet(
        {
            "id": [1, 2, 3],
            "prompt": pyarrow.array(["2 + 2 =", None, None]).dictionary_encode(),
            "completion": [" 4", None, None],
            "messages": [None, CHAT, None],
            "text": pyarrow.array([None, None, "a\nb\u2028"], pyarrow.large_string()),
        },
        compression="zstd",
    )

    response = upload(content, "rows.txt")

    assert response.status_code == 201, response.text
    dataset = response.json()
    assert (dataset["format"], dataset["rows"], dataset["bytes"]) == ("parquet", 3, len(content))
    assert dataset["contents"]["forms"] == {"prompt": 1, "messages": 1, "text": 1}
    assert dataset["contents"]["ignored_fields"] == ["id"]
    [stored] = settings.datasets_dir.glob("*.jsonl")
    assert [json.loads(line) for line in stored.read_bytes().splitlines()] == [
        {"prompt": "2 + 2 =", "completion": " 4"},
        {"messages": CHAT},
        {"text": "a\nb\u2028"},
    ]
    assert not list(settings.datasets_dir.joinpath("incoming").iterdir())


def test_every_invalid_row_is_named_by_its_number(upload: Any, settings: Settings) -> None:
    texts = pyarrow.array([b"fine", b"\xff", None, b"a\0", b" "]).cast(pyarrow.string(), safe=False)

    response = upload(parquet({"text": texts, "id": [1, 2, 3, 4, 5]}))

    assert response.status_code == 422
    assert [(error["field"], error["message"][:20]) for error in response.json()["errors"]] == [
        ("row 2", "not UTF-8"),
        ("row 3", 'expected {"prompt", '),
        ("row 4: text", "character 1 is NUL, "),
        ("row 5: text", "is empty: there is n"),
    ]
    assert not list(settings.datasets_dir.rglob("*.*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (parquet({"question": ["a"]}), "its columns are ['question']"),
        (parquet({"text": pyarrow.array([], pyarrow.string())}), "holds no row"),
        (parquet({"text": ["a"] * 101}), "holds more than 100 rows"),
        # A hundred kilobytes that expand fifty times: each row refers to the one text of a dictionary.
        (parquet({"text": ["x" * 60_000] * 90}), "expands to more than 1000000 bytes"),
        (parquet({"text": ["x" * 70_000]}), "row 1: is longer than 65536 bytes"),
        (parquet({"text": ["a"]})[:-20], "its end is missing or garbled"),
        (b"PAR1", "it ends after 4 bytes"),
        (b"PARE" + parquet({"text": ["a"]})[4:], "is encrypted"),
        (parquet({"text": ["a"]})[:-8] + b"\xff\xff\xff\x7fPAR1", "its end is missing or garbled"),
        (b"PAR1" + b"\0" * 50 + b"\x20\0\0\0PAR1", "is not a Parquet file that can be read"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    settings: Settings, operator_key: str, content: bytes, message: str
) -> None:
    limits = {"max_dataset_rows": 100, "max_upload_bytes": 1_000_000, "max_row_bytes": 65_536}
    with TestClient(create_app(settings.model_copy(update=limits)), headers=bearer(operator_key)) as client:
        response = client.post("/datasets", files={"file": ("a", content)})

    assert response.status_code == 422
    assert message in response.json()["detail"]
    assert not list(settings.datasets_dir.rglob("*.*"))


def test_a_file_that_expands_beyond_the_memory_allowed_is_refused(tmp_path: Path) -> None:
    one_text_for_all = pyarrow.DictionaryArray.from_arrays([0] * 200, ["x" * 2**22])
    (tmp_path / "bomb").write_bytes(parquet({"text": one_text_for_all}, compression="zstd"))

    with pytest.raises(UnusableFile, match="within the memory allowed"):
        convert_file(tmp_path / "bomb", tmp_path / "rows", LIMITS, ColumnMapping(), memory_bytes=2**29)


def test_damaged_files_are_refused_or_read_without_other_errors(tmp_path: Path) -> None:
    whole = parquet({"text": [f"row {number}" for number in range(50)], "messages": [CHAT] * 50}, compression="snappy")
    (tmp_path / "whole").write_bytes(whole)
    program = f"""
import random, sys
from collections import Counter
from pathlib import Path
from api.datasets.conversion import convert_in_process
from greencore.dataset.containers import ColumnMapping, ReadLimits, UnusableFile

folder, dice, seen = Path({str(tmp_path)!r}), random.Random(7), Counter()
whole = (folder / "whole").read_bytes()
for number in range(300):
    damaged = bytearray(whole)
    for _ in range(dice.choice((1, 3, 30))):
        damaged[dice.randrange(4, len(damaged) - 8)] = dice.choice((0, 1, 127, 255, dice.randrange(256)))
    (folder / "damaged").write_bytes(damaged)
    try:
        convert_in_process(
            folder / "damaged", folder / str(number), ReadLimits(100, 10_000, 100_000), ColumnMapping()
        )
        seen["read"] += 1
    except UnusableFile:
        seen["refused"] += 1
assert seen["refused"] > 50, seen
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
