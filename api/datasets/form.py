"""Streaming parser that extracts the one file of a multipart form."""

from http import HTTPStatus

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.http.problems import Problem, closing_problem, invalid_field

FILE, COLUMNS = b"file", b"columns"
LONGEST_COLUMNS = 4096  # bytes
MAX_PARTS = 20


class MultipartFileReader:
    """Parses a form in chunks and returns the bytes of its field `file`; `columns` is kept, other fields are skipped.

    Raises the 400 for a form that cannot be read, and the 422 for a second field of these names, or too long `columns`.
    (Starlette's own parser stores the whole file in the system's temporary folder first.)
    """

    def __init__(self, boundary: bytes) -> None:
        self.found, self.filename, self.media_type = False, "", ""
        self.columns: bytearray | None = None
        self._parts, self._ended, self._field = 0, False, b""
        self._header_name, self._header_value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        if not boundary:
            raise _unreadable("its content type names no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value_piece,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_ends,
                    "on_end": self._form_ends,
                },
            )
        except FormParserError as error:
            raise _unreadable(str(error)) from error

    def feed(self, chunk: bytes) -> list[bytes]:
        """Parse the form's next bytes, and return the file's bytes in them."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable(str(error)) from error
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """Raise the 400 unless the form is complete."""
        if not self._ended:
            raise _unreadable("it breaks off before its closing boundary")

    def _part_begins(self) -> None:
        self._parts += 1
        self._headers = {}
        if self._parts > MAX_PARTS:
            raise _unreadable(f"it has more than {MAX_PARTS} fields")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_piece(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = options.get(b"name", b"")
        if self._field == COLUMNS:
            if self.columns is not None:
                raise invalid_field("columns", "is given twice")
            self.columns = bytearray()
        if self._field != FILE:
            return
        if self.found:
            raise invalid_field("file", "is given twice: expected one file")
        self.found = True
        self.filename = options.get(b"filename", b"").decode(errors="replace")
        media_type, _ = parse_options_header(self._headers.get(b"content-type"))
        self.media_type = media_type.decode("latin-1").lower()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == FILE:
            self._pieces.append(data[start:end])
        elif self._field == COLUMNS and self.columns is not None:
            self.columns += data[start:end]
            if len(self.columns) > LONGEST_COLUMNS:
                raise invalid_field("columns", f"is longer than {LONGEST_COLUMNS} bytes")

    def _part_ends(self) -> None:
        self._field = b""

    def _form_ends(self) -> None:
        self._ended = True


def _unreadable(why: str) -> Problem:
    return closing_problem(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {why}")
