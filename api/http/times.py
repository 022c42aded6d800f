"""Times on their way in: with an offset from UTC, and in UTC from there on."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator


def _require_text(given: object) -> object:
    # Numbers would be taken for seconds since 1970, or for milliseconds where they are large.
    if isinstance(given, datetime) or (isinstance(given, str) and ":" in given):
        return given
    raise ValueError("expected a time such as 2026-11-23T18:00:00Z")


def _to_utc(time: datetime) -> datetime:
    if time.utcoffset() is None:
        raise ValueError("has no offset from UTC: expected a time such as 2026-11-23T18:00:00Z")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years 1 to 9999") from error


def _check_year(time: datetime) -> datetime:
    if not 1970 <= time.year < 2200:
        raise ValueError("lies outside the years 1970 to 2199")
    return time


UtcDatetime = Annotated[datetime, BeforeValidator(_require_text), AfterValidator(_to_utc)]
# Of a reading: so far from the ends of the calendar that a year may be added or taken away.
RecordedTime = Annotated[UtcDatetime, AfterValidator(_check_year)]
