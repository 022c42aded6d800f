"""How long a server asks to be left alone."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def parse_retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """The time that Retry-After asks for, in seconds or as a date; None where it is absent or makes no sense.

    The names of the headers are in small letters, or are found in any case, as in `httpx.Headers`.
    """
    given = headers.get("retry-after", "").strip()
    try:
        seconds = float(given)
    except ValueError:
        try:
            until = parsedate_to_datetime(given)
            # The date is by the server's clock, so it is taken from what that clock says now.
            now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
            seconds = (until - now).total_seconds()
        except (ValueError, TypeError):
            return None
        return timedelta(seconds=max(seconds, 0.0))
    if not math.isfinite(seconds) or not 0 <= seconds < timedelta.max.total_seconds():
        return None
    return timedelta(seconds=seconds)
