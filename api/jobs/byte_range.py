"""The `Range` header of RFC 9110, as far as a download that goes on needs it."""

import re
from http import HTTPStatus

from api.http.problems import Problem

RANGE_PATTERN = re.compile(
    r"\s*bytes\s*=\s*(?:(?P<first>\d{1,18})-(?P<last>\d{0,18})|-(?P<suffix>\d{1,18}))\s*", re.I | re.A
)


def parse_byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The half-open range [start, end) of a file of `size` bytes that a `Range` header asks for.

    None where the header is to be ignored (§14.2): another unit, no range that can be read, or several, which would
    have to be wrapped up. Raises the 416 where nothing of the file lies in the range.
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
