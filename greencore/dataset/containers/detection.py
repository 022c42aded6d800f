"""Detects container and compression of a file of rows from its content, and from its name where that leaves it open."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from greencore.dataset import BYTE_ORDER_MARK

HEAD_BYTES = 2**16  # of content, by which a container is detected
PARQUET_MAGIC, ENCRYPTED_PARQUET_MAGIC = b"PAR1", b"PARE"


class Container(StrEnum):
    """How a file holds its rows."""

    JSON_LINES = "jsonl"
    JSON_ARRAY = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"

    @property
    def place(self) -> str:
        """Term by which errors count rows: the line on which a row begins, or the number of a row or an element."""
        return {Container.JSON_ARRAY: "element", Container.PARQUET: "row"}.get(self, "line")


class Compression(StrEnum):
    """Compression of a whole file; Parquet compresses its pages by itself."""

    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True)
class FileFormat:
    """Container of a file, and the compression around it."""

    container: Container
    compression: Compression | None = None


COMPRESSION_MAGIC = {b"\x1f\x8b": Compression.GZIP, b"\x28\xb5\x2f\xfd": Compression.ZSTD}
COMPRESSED_ENDINGS = (".gz", ".zst")
DELIMITERS = {Container.CSV: ",", Container.TSV: "\t"}
TEXT_ENDINGS = {".csv": Container.CSV, ".tsv": Container.TSV, ".tab": Container.TSV}
TEXT_MEDIA_TYPES = {"text/csv": Container.CSV, "text/tab-separated-values": Container.TSV}


def detect_compression(head: bytes) -> Compression | None:
    """Return the compression of a file from its first bytes."""
    return next((kind for magic, kind in COMPRESSION_MAGIC.items() if head.startswith(magic)), None)


def detect_container(head: bytes, *, fields: Collection[str], hint: Container | None) -> Container:
    """Return the container from the first bytes of (decompressed) content.

    Parquet shows by its magic bytes, JSON by its first bracket. Text is CSV or TSV if its first line, split at commas
    or tabs, holds one of `fields`, or else if `hint` says so. Everything else is read as JSON Lines.
    """
    if head.startswith((PARQUET_MAGIC, ENCRYPTED_PARQUET_MAGIC)):
        return Container.PARQUET
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if text[:1] in (b"[", b"{"):
        return Container.JSON_ARRAY if text[:1] == b"[" else Container.JSON_LINES
    first_line = text.partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    fitting = [
        container
        for container, delimiter in DELIMITERS.items()
        if not set(fields).isdisjoint(split_header(first_line, delimiter))
    ]
    if hint is not None and (hint in fitting or not fitting):
        return hint
    return fitting[0] if fitting else Container.JSON_LINES


def hint_container(name: str, media_type: str = "") -> Container | None:
    """Return the kind of table that a file's name says, or its media type, else None."""
    lower = name.lower()
    for ending in COMPRESSED_ENDINGS:
        lower = lower.removesuffix(ending)
    named = next((kind for ending, kind in TEXT_ENDINGS.items() if lower.endswith(ending)), None)
    return named or TEXT_MEDIA_TYPES.get(media_type)


def split_header(line: str, delimiter: str) -> list[str]:
    """Return the names in a table's first line, without the spaces around them; none where it is not a header."""
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []
