"""Parser of the `Range` header (RFC 9110, 14.2), as far as resumed downloads need it."""

import re
from http import HTTPStatus

from api.http.problems import Problem

RANGE_PATTERN = re.compile(
    r"\s*bytes\s*=\s*(?:(?P<first>\d{1,18})-(?P<last>\d{0,18})|-(?P<suffix>\d{1,18}))\s*", re.I | re.A
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
