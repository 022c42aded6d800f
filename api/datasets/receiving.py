"""Receives an upload as a stream to disk, within its size limit, and removes it unless it is stored."""

import asyncio
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from api.datasets.form import MultipartFileReader
from api.http.problems import Problem, closing_problem, invalid_field
from greencore.dataset.containers import ColumnMapping, Container, hint_container
from runtime.ids import new_id
from runtime.private_files import make_private_folder, open_private
from runtime.settings import Settings

FORM = "multipart/form-data"
RAW = (
    "application/x-ndjson",
    "application/jsonl",
    "text/csv",
    "text/tab-separated-values",
    "application/vnd.apache.parquet",
    "application/gzip",
    "application/zstd",
    "application/octet-stream",
)
IDLE_SECONDS = 60.0
WRITE_BYTES = 2**20
LONGEST_NAME = 200
LONGEST_SENT_NAME = 4096  # a path, of which the last part is kept
# Left by a killed process: a live upload writes at least every IDLE_SECONDS, and is validated within minutes.
ABANDONED_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class ReceivedUpload:
    """An upload on disk, as it was sent; `name` is for display only, and never a path.

    `hint` is the kind of table that its name or media type says, `columns` how its fields are to be mapped.
    """

    file: Path
    name: str
    bytes: int
    sha256: str
    hint: Container | None
    columns: ColumnMapping


@contextmanager
def upload_folder(settings: Settings) -> Iterator[Path]:
    """Create a folder for one upload, on the same disk as the datasets; remove it with its contents at the end."""
    parent = settings.datasets_dir / "incoming"
    folder = parent / new_id("upload")
    make_private_folder(folder)
    try:
        _remove_abandoned(parent)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def receive_upload(
    request: Request, folder: Path, *, name: str | None, columns: str | None, max_bytes: int
) -> ReceivedUpload:
    """Write the file that a request carries into `folder`.

    It is the field `file` of a form, or else the whole body; `columns`, as JSON, may be a field of the form as well.
    Raises the 400 for a form that cannot be read or is incomplete, 408 if nothing arrives for a minute, 413, 415, and
    422 without a file, or for columns that cannot be read.
    """
    mapping = _parse_columns(columns)
    media_type, options = parse_options_header(request.headers.get("content-type"))
    kind = media_type.decode("latin-1").lower()
    if kind == FORM:
        form = MultipartFileReader(options.get(b"boundary", b""))
        pieces = _pieces_of_form(request, form)
    elif kind in RAW:
        form, pieces = None, _chunks(request)
    else:
        expected = ", ".join((FORM, *RAW))
        given = ascii(kind[:100]) if kind else "none"
        raise closing_problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"given the content type {given}: expected {expected}")
    target = folder / "received"
    size, digest = await _write(pieces, target, max_bytes)
    if form is not None and not form.found:
        raise invalid_field("file", "is missing: send the rows in a form's field of this name, or as the whole body")
    if form is not None and form.columns is not None:
        if columns is not None:
            raise invalid_field("columns", "is given twice, in the query and in the form")
        mapping = _parse_columns(form.columns.decode(errors="replace"))
    display_name = _display_name(name or (form.filename if form is not None else ""))
    hint = hint_container(display_name, kind if form is None else form.media_type)
    return ReceivedUpload(target, display_name, size, digest, hint, mapping)


def _parse_columns(text: str | None) -> ColumnMapping:
    try:
        return ColumnMapping() if text is None else ColumnMapping.parse(json.loads(text))
    except json.JSONDecodeError as error:
        raise invalid_field("columns", f"is not JSON: {error.msg} at character {error.pos}") from error
    except (ValueError, RecursionError) as error:
        raise invalid_field("columns", str(error)) from error


async def _write(pieces: AsyncIterator[bytes], target: Path, max_bytes: int) -> tuple[int, str]:
    size, digest, waiting = 0, hashlib.sha256(), bytearray()
    with open(target, "xb", buffering=0, opener=open_private) as file:

        def flush() -> None:
            digest.update(waiting)
            view = memoryview(waiting)
            while view:
                view = view[file.write(view) :]

        async for piece in pieces:
            size += len(piece)
            if size > max_bytes:
                detail = f"the file is larger than {max_bytes} bytes, the most that this service takes"
                raise closing_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            waiting += piece
            if len(waiting) >= WRITE_BYTES:
                await run_in_threadpool(flush)
                waiting = bytearray()
        await run_in_threadpool(flush)
    return size, digest.hexdigest()


async def _pieces_of_form(request: Request, form: MultipartFileReader) -> AsyncIterator[bytes]:
    async for chunk in _chunks(request):
        for piece in form.feed(chunk):
            yield piece
    form.finish()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            detail = f"nothing arrived for {IDLE_SECONDS:g} seconds"
            raise closing_problem(HTTPStatus.REQUEST_TIMEOUT, detail) from error
        except ClientDisconnect as error:
            raise Problem(HTTPStatus.BAD_REQUEST, "the upload was interrupted") from error
        if chunk is None:
            return
        yield chunk


def _remove_abandoned(parent: Path) -> None:
    before = time.time() - ABANDONED_SECONDS
    for folder in parent.iterdir():
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        except FileNotFoundError:
            continue  # removed in the meantime
        if newest < before:
            shutil.rmtree(folder, ignore_errors=True)


def _display_name(sent: str) -> str:
    """Return the last part of the path that the client sent, in printable characters; no file has this name."""
    name = sent.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)[:LONGEST_NAME]
