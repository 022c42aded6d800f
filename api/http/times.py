"""Request times: an offset from UTC is required, and the value is converted to UTC."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator


def _require_text(given: object) -> object:
    # pydantic would read numbers as seconds since 1970, or as milliseconds if they are large.
    if isinstance(given, datetime) or (isinstance(given, str) and ":" in given):
        return given
    raise ValueError("expected a time such as 2026-11-23T18:00:00Z")


def _to_utc(time: datetime) -> datetime:
    if time.utcoffset() is None:
        raise ValueError("has no offset from UTC: expected a time such as 2026-11-23T18:00:00Z")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the years 1 to 9999") from error


def _check_year(time: datetime) -> datetime:
    if not 1970 <= time.year < 2200:
        raise ValueError("is outside the years 1970 to 2199")
    return time


UtcDatetime = Annotated[datetime, BeforeValidator(_require_text), AfterValidator(_to_utc)]
# Time of a reading: far enough from the calendar's ends to add or subtract a year.
RecordedTime = Annotated[UtcDatetime, AfterValidator(_check_year)]
