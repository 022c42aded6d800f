"""`/jobs/{id}/artifacts`: lists and serves a job's result files; a download can be resumed."""

import re
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse

from api.dependencies import AppContextDep, SessionDep
from api.http.etags import IfNoneMatch, check_etag, etag_headers
from api.http.pagination import LONGEST_ID, Listing, complete_listing
from api.http.problems import Problem, problem_responses
from api.jobs.endpoints import NOT_FOUND, JobDep
from api.row_model import RowModel
from store.repositories.jobs import JobRepository
from store.tables import Artifact, Job

# The longest path of the file system: a name longer than an artifact's is not found, like any other unknown name.
LONGEST_PATH = 4096
# One range (RFC 9110, 14.2): several would need a multipart response.
RANGE_PATTERN = re.compile(
    r"\s*bytes\s*=\s*(?:(?P<first>\d{1,18})-(?P<last>\d{0,18})|-(?P<suffix>\d{1,18}))\s*", re.I | re.A
)
ArtifactPath = Annotated[str, PathParameter(max_length=LONGEST_PATH)]

BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
TEXT = {"type": "string"}
TAG = {"ETag": {"description": "The file's SHA-256", "schema": TEXT}}
FILE_HEADERS = {**TAG, "Accept-Ranges": {"schema": {**TEXT, "enum": ["bytes"]}}}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {"description": "The whole file", "content": BYTES, "headers": FILE_HEADERS},
    HTTPStatus.NOT_MODIFIED.value: {"description": "The client's copy is current", "headers": TAG},
    HTTPStatus.PARTIAL_CONTENT.value: {
        "description": "The part that `Range` requests",
        "content": BYTES,
        "headers": {
            **FILE_HEADERS,
            "Content-Range": {"description": "First and last byte of the part, and the file's size", "schema": TEXT},
        },
    },
}

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"], responses=NOT_FOUND)


class ArtifactOut(RowModel):
    """One file of a finished job's result."""

    name: str
    bytes: int
    sha256: str
    created_at: datetime
    link: str

    @classmethod
    def of(cls, artifact: Artifact) -> "ArtifactOut":
        """Build from a stored artifact."""
        return cls.from_row(artifact, link=f"/jobs/{artifact.job_id}/artifacts/{quote(artifact.name)}")


@router.get("/artifacts", summary="List a job's result files")
def list_artifacts(job: JobDep, session: SessionDep) -> Listing[ArtifactOut]:
    """Empty until the job has succeeded."""
    return complete_listing([ArtifactOut.of(artifact) for artifact in JobRepository(session).artifacts(job.id)])


@router.get(
    "/artifacts/{name:path}",
    summary="Download a result file",
    response_class=FileResponse,
    responses=FILE_RESPONSES | problem_responses(HTTPStatus.GONE, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
)
def download_artifact(
    job: JobDep,
    name: ArtifactPath,
    context: AppContextDep,
    session: SessionDep,
    if_none_match: IfNoneMatch = None,
    range_: Annotated[
        str | None,
        Header(alias="Range", max_length=LONGEST_ID, description="One range of bytes, such as `bytes=1048576-`"),
    ] = None,
    if_range: Annotated[
        str | None,
        Header(
            alias="If-Range",
            max_length=LONGEST_ID,
            description="ETag of the partial copy: if the file has another, the whole file is sent",
        ),
    ] = None,
) -> Response:
    """Only files that are recorded for the job are served."""
    del range_, if_range  # named for the description; the response itself acts on them
    artifact = JobRepository(session).artifact(job.id, name)
    if artifact is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"{job.id} has no artifact {name!r}")
    folder = context.settings.job_dir(job.id).resolve()
    file = context.settings.artifact_file(job.id, artifact.name).resolve()
    if not file.is_relative_to(folder) or not file.is_file():
        raise _missing(job, artifact)
    tag = f'"{artifact.sha256}"'
    check_etag(if_none_match, tag)
    return _RangeFileResponse(
        file,
        media_type="application/octet-stream",
        filename=Path(artifact.name).name,
        headers=etag_headers(tag),
    )


def parse_byte_range(header: str, size: int) -> tuple[int, int] | None:
    """Return the half-open range [start, end) that a `Range` header requests of a file of `size` bytes.

    None if the header is to be ignored: another unit, a malformed range, or several, which would need a multipart
    response. Raises the 416 if the range is beyond the file.
    """
    match = RANGE_PATTERN.fullmatch(header)
    if match is None:
        return None
    if match["suffix"] is not None:
        start, end = max(0, size - int(match["suffix"])), size
    else:
        start, end = int(match["first"]), min(size, int(match["last"] or size) + 1)
        if match["last"] and int(match["last"]) < start:
            return None
    if start >= size:
        raise Problem(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"given {header!r}: the file has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def _missing(job: Job, artifact: Artifact) -> Problem:
    if job.files_removed_at is not None:
        when = job.files_removed_at.isoformat(timespec="seconds")
        detail = f"{artifact.name!r} was removed {when}: this service keeps results for a limited time"
        return Problem(HTTPStatus.GONE, detail)
    return Problem(HTTPStatus.NOT_FOUND, f"the file of artifact {artifact.name!r} is missing from this service's data")


class _RangeFileResponse(FileResponse):
    """Starlette's response with our parser of `Range`: its own refuses, in plain text, what RFC 9110 says to ignore."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        part = parse_byte_range(http_range, file_size)
        return [] if part is None else [part]
