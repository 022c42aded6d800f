"""Files of rows in every container and compression."""

import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO, StringIO
from typing import Any

import pyarrow
import pyarrow.parquet

Rows = Sequence[Mapping[str, Any]]


def json_lines(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def json_array(rows: Rows) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def table(rows: Rows, delimiter: str) -> bytes:
    """Return the rows as CSV or TSV, with the fields of all rows as columns, and values that are no text as JSON."""
    content = StringIO(newline="")
    writer = csv.DictWriter(content, list(dict.fromkeys(name for row in rows for name in row)), delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()})
    return content.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    content = BytesIO()
    names = dict.fromkeys(name for row in rows for name in row)
    pyarrow.parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in names}), content)
    return content.getvalue()


def two_columns_of_one_name() -> bytes:
    """Return Parquet with two columns `text`."""
    content = BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, ["text", "text"]), content)
    return content.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, "zstd", asbytes=True))


CONTAINERS: Mapping[str, Callable[[Rows], bytes]] = {
    "jsonl": json_lines,
    "json": json_array,
    "csv": lambda rows: table(rows, ","),
    "tsv": lambda rows: table(rows, "\t"),
    "parquet": parquet,
}
COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": partial(gzip.compress, mtime=0),
    "zstd": zstd,
}
