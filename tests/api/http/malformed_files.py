"""Generators of malformed files of rows in every container and compression, and of columns that they do not have."""

import csv
import gzip
import json
import random
from collections.abc import Callable
from io import StringIO
from urllib.parse import quote

from tests.row_files import COMPRESSIONS, CONTAINERS

GOOD = [{"prompt": "2 + 2 =", "completion": " 4"}, {"prompt": "a,\tb", "completion": '"c"\nd'}]
COLUMNS = (
    *("", "{", "null", "[]", "5", '"prompt"', '{"prompt": null}', '{"prompt": []}', '{"prompt": ""}', '{"": "prompt"}'),
    *('{"prompt": "none"}', '{"prompt": "none.at.all"}', '{"prompt": "prompt.deeper"}', '{"weight": "prompt"}'),
    *('{"prompt": "prompt", "text": "prompt"}', '{"prompt": "\\u0000"}', '{"prompt": "\\ud800"}', "[" * 3000),
    *('{"prompt": "%s"}' % ("x" * 300), '{"prompt": "%s"}' % (".a" * 20), '{"prompt": "completion", "messages": "a"}'),
)


def wrong_file(rng: random.Random) -> tuple[bytes, bytes]:
    """Return the content of a file with a fault, and its media type."""
    make = rng.choice((_wrong_array, _wrong_table, _wrong_table, _wrong_row_of_any))
    content = make(rng)
    kind = rng.randrange(6)
    if kind == 0:
        content = gzip.compress(content)
    elif kind == 1:
        content = COMPRESSIONS["zstd"](content)
    elif kind == 2:
        compressed = rng.choice((gzip.compress, COMPRESSIONS["zstd"]))(CONTAINERS["jsonl"](GOOD * 50))
        content = compressed[: rng.randrange(4, len(compressed) - 1)]
    elif kind == 3:
        whole = gzip.compress(CONTAINERS[rng.choice(list(CONTAINERS))](GOOD))
        content = whole[:-8] + rng.randbytes(8)  # its checksum and length
    return content, rng.choice((b"text/csv", b"text/tab-separated-values", b"application/octet-stream"))


def wrong_columns(rng: random.Random) -> tuple[bytes, bytes]:
    """Return a query with columns that cannot be used, and a good file."""
    return b"columns=" + quote(rng.choice(COLUMNS)).encode(), CONTAINERS[rng.choice(list(CONTAINERS))](GOOD)


def _wrong_array(rng: random.Random) -> bytes:
    bad = rng.choice(
        ("1", "null", "[]", "{}", '{"prompt": 1}', '{"text": ""}', "{", '"', "nul", "1e", "-", "\x00", "[" * 5000, ",")
    )
    elements = [*map(json.dumps, GOOD * rng.randrange(3)), bad, *map(json.dumps, GOOD * rng.randrange(3))]
    text = "[" + rng.choice((",", " ,\n", ",\t")).join(elements) + "]"
    return rng.choice((text, text[:-1], text + "]", text + "\n{}", "\ufeff " + text)).encode()


def _wrong_table(rng: random.Random) -> bytes:
    delimiter = rng.choice((",", "\t"))
    header = rng.choice((["prompt", "completion"], ["completion", "id", "prompt"], ["text", "id"]))
    fine = ["w1"] * len(header)
    bad: Callable[[], bytes] = rng.choice(
        (
            lambda: _line([*fine, "more"], delimiter),
            lambda: _line([" ", *fine[1:-1]], delimiter),
            lambda: b'"' + rng.choice((b"", b"open\n" * 50, b"x" * 70_000)),
            lambda: _line(fine, delimiter).replace(b"w1", b"\xff\xfe", 1),
            lambda: _line(fine, delimiter).replace(b"w1", b"\0", 1),
            lambda: b'"a"b' + _line(fine, delimiter),
        )
    )
    if rng.random() < 0.2:
        names = rng.choice((["prompt", "prompt"], ["text"] * 3, ["a", "b"], [""] * 3, ["text", *map(str, range(2000))]))
        return _line(names, delimiter) + _line(["w1"] * len(names), delimiter)
    rows = _line(fine, delimiter)
    return _line(header, delimiter) + rows * rng.randrange(3) + bad() + b"\n" + rows * rng.randrange(3)


def _wrong_row_of_any(rng: random.Random) -> bytes:
    rows = [*GOOD, {"prompt": rng.choice(("alone", ""))}]
    rng.shuffle(rows)
    return CONTAINERS[rng.choice(list(CONTAINERS))](rows)


def _line(cells: list[str], delimiter: str) -> bytes:
    line = StringIO(newline="")
    csv.writer(line, delimiter=delimiter).writerow(cells)
    return line.getvalue().encode()
