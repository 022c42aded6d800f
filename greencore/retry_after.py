"""Parser of the HTTP header Retry-After, for carbon providers and webhook receivers."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def parse_retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return the delay that Retry-After gives, in seconds or as a date; None where it is absent or invalid.

    `headers` has lower-case names, or is case-insensitive as `httpx.Headers` is.
    """
    given = headers.get("retry-after", "").strip()
    try:
        seconds = float(given)
    except ValueError:
        try:
            until = parsedate_to_datetime(given)
            # The date is by the server's clock, so it is compared with that clock's time.
            now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
            seconds = (until - now).total_seconds()
        except (ValueError, TypeError):
            return None
        return timedelta(seconds=max(seconds, 0.0))
    if not math.isfinite(seconds) or not 0 <= seconds < timedelta.max.total_seconds():
        return None
    return timedelta(seconds=seconds)
