"""Reads a JSON array element by element: one element and one chunk of the file are in memory."""

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping
from io import BufferedReader
from itertools import count

from greencore.dataset import ROW_FORMS, InvalidRow
from greencore.dataset.containers.limits import ReadLimits, UnusableFile

CHUNK_BYTES = 2**20
DECODER = json.JSONDecoder()
NOT_SPACE = re.compile(r"[^ \t\n\r]")
# Of text that breaks off, the decoder reports a string without end, or a fault this close to the text's end.
LONGEST_TOKEN = len(r"\ud83d\udca9")


def read_json_array(
    content: BufferedReader, limits: ReadLimits
) -> Iterator[tuple[int, Mapping[str, object] | InvalidRow]]:
    """Yield (number from 1, object or the element's error) of each element.

    Raises `UnusableFile` where the next element cannot be found: for content that is not JSON in UTF-8, and for an
    element above the limit whose end has not been read.
    """
    text = _TextWindow(content)
    text.take("[")
    if text.peek() == "]":
        text.take("]")
    else:
        for number in count(1):
            value, size = text.take_value(f"element {number}", limits)
            if size > limits.row_bytes:
                yield number, limits.long_row(number)
            elif isinstance(value, dict):
                yield number, value
            else:
                yield number, InvalidRow(number, None, f"expected an object, {ROW_FORMS}, got {type(value).__name__}")
            if text.take(",]") == "]":
                break
    if text.peek():
        raise text.fault("Extra data after the array")


class _TextWindow:
    """The text of a file that is read but not yet taken."""

    def __init__(self, content: BufferedReader) -> None:
        self._content, self._decoder = content, getincrementaldecoder("utf-8")()
        self._text, self._position, self._at_end = "", 0, False
        self._bytes_read, self._line, self._column = 0, 1, 1  # line and column of the window's first character

    def peek(self) -> str:
        """Skip white space and return the next character, "" at the end of the file."""
        while (found := NOT_SPACE.search(self._text, self._position)) is None:
            self._position = len(self._text)
            if self._at_end:
                return ""
            self._read(CHUNK_BYTES)
        self._position = found.start()
        return found[0]

    def take(self, expected: str) -> str:
        """Skip white space and take a character, one of `expected`. Raises `UnusableFile` for another one."""
        found = self.peek()
        if not found or found not in expected:
            raise self.fault(f"Expecting {' or '.join(map(repr, expected))}")
        self._position += 1
        return found

    def take_value(self, name: str, limits: ReadLimits) -> tuple[object, int]:
        """Skip white space and take a JSON value; return it and its size in bytes.

        Raises `UnusableFile` for what is no JSON, or longer than a row may be as far as it has been read.
        """
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - LONGEST_TOKEN
                if self._at_end or not may_go_on:
                    raise self.fault(f"{name}: {error.msg}", error.pos) from error
            except (ValueError, RecursionError) as error:  # thousands of digits in a number, or of nested brackets
                raise UnusableFile(f"{name}: not usable JSON: {error}") from error
            else:
                if end + len("e-") < len(self._text) or self._at_end:  # a number may go on in the next chunk
                    size = len(self._text[self._position : end].encode(errors="surrogatepass"))
                    self._position = end
                    return value, size
            unfinished = len(self._text) - self._position
            if unfinished > limits.row_bytes:
                raise UnusableFile(f"{name}: {limits.long_row(0).message}")
            self._read(max(CHUNK_BYTES, unfinished))  # so that a long value is not decoded once for each chunk

    def fault(self, message: str, position: int | None = None) -> UnusableFile:
        """Return the error of what is found at the `position` of the window, by default the next character."""
        at = self._position if position is None else position
        line, column = self._locate(at)
        return UnusableFile(f"is not a JSON array: {message} at line {line} column {column}")

    def _read(self, size: int) -> None:
        self._line, self._column = self._locate(self._position)
        chunk = self._content.read(size)
        pending = len(self._decoder.getstate()[0])
        try:
            more = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at = self._bytes_read - pending + error.start
            raise UnusableFile(f"is not UTF-8: byte {at} cannot be decoded") from error
        self._bytes_read += len(chunk)
        self._text, self._position, self._at_end = self._text[self._position :] + more, 0, not chunk

    def _locate(self, position: int) -> tuple[int, int]:
        """Return line and column in the file of a position in the window, both from 1."""
        lines = self._text.count("\n", 0, position)
        if lines:
            return self._line + lines, position - self._text.rindex("\n", 0, position)
        return self._line, self._column + position
