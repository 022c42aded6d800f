"""Validates a received upload, and converts it to JSON Lines unless its rows are that already."""

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from api.datasets.isolation import convert_file
from api.datasets.receiving import ReceivedUpload
from api.datasets.validator import DatasetSummary, validate_rows
from api.http.problems import FieldProblem, Problem, invalid_field, invalid_fields
from greencore.dataset.containers import FileFormat, ReadLimits, UnusableFile, is_plain_json_lines, open_rows


@dataclass(frozen=True)
class ValidatedUpload:
    """Valid rows: a file of JSON Lines, the name of its blob, and a summary of its contents."""

    file: Path
    blob: str
    format: FileFormat
    rows: int
    contents: dict[str, Any]


def validate_upload(received: ReceivedUpload, limits: ReadLimits) -> ValidatedUpload:
    """Validate an upload; a converted file is written beside it.

    Its container is detected from the content, and from its name and media type where that leaves it open. Raises the
    422 that names the first hundred invalid rows, or what is wrong with the file; `OSError` for a full disk.
    """
    try:
        if not received.columns.sources and is_plain_json_lines(received.file, hint=received.hint):
            file, blob = received.file, received.sha256
            with open_rows(file, limits=limits, hint=received.hint) as rows:
                summary, kind = validate_rows(rows, limits), rows.format
        else:
            file = received.file.with_name("converted")
            converted = convert_file(received.file, file, limits, received.columns, hint=received.hint)
            summary, kind, blob = converted.summary, converted.format, converted.sha256
    except UnusableFile as refused:
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
