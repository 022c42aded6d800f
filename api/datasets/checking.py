"""Validates a received upload, and converts it to JSON Lines if it is Parquet."""

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from api.datasets.parquet import convert_parquet, is_parquet
from api.datasets.receiving import ReceivedUpload
from api.datasets.validator import DatasetLimits, DatasetRejected, DatasetSummary, check_json_lines
from api.http.problems import FieldProblem, Problem, invalid_field, invalid_fields


@dataclass(frozen=True)
class ValidatedUpload:
    """Valid rows: a file of JSON Lines, the name of its blob, and a summary of its contents."""

    file: Path
    blob: str
    format: str
    rows: int
    contents: dict[str, Any]


def validate_upload(received: ReceivedUpload, limits: DatasetLimits) -> ValidatedUpload:
    """Validate an upload; a converted file is written beside it.

    The format is detected from the content. Raises the 422 that names the first hundred invalid rows, or what is wrong
    with the file; `OSError` for a full disk.
    """
    try:
        if is_parquet(received.file):
            file = received.file.with_name("converted")
            (summary, blob), kind = convert_parquet(received.file, file, limits), "parquet"
        else:
            file = received.file
            summary, blob, kind = check_json_lines(file, limits), received.sha256, "jsonl"
    except DatasetRejected as refused:
        raise invalid_field("file", str(refused)) from refused
    if summary.faults:
        raise _faulty(summary)
    return ValidatedUpload(file, blob, kind, summary.rows, summary.contents)


def _faulty(summary: DatasetSummary) -> Problem:
    errors = [FieldProblem(field=fault.field, message=fault.message) for fault in summary.faults]
    if summary.fault_count == len(errors):
        return invalid_fields(errors)
    detail = (
        f"{errors[0].field}: {errors[0].message} (and {summary.fault_count - 1} more, of which the first "
        f"{len(errors)} are listed)"
    )
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)
