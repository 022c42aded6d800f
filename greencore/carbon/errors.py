"""Errors of obtaining and using carbon intensities."""

from datetime import datetime
from pathlib import Path


class CarbonError(Exception):
    """Base class of all carbon-intensity errors."""


class InvalidReading(CarbonError, ValueError):
    """A reading or a series of readings is inconsistent."""


class InvalidSpec(CarbonError, ValueError):
    """A source specification names no known source, or has an invalid option."""


class NoReading(CarbonError, LookupError):
    """A source or a series has no reading for the requested time."""


class UnknownZone(CarbonError, LookupError):
    """A source does not know the requested zone, `.zone`."""

    def __init__(self, zone: str, message: str) -> None:
        super().__init__(f"unknown zone {zone!r}: {message}")
        self.zone = zone


class InvalidTrace(CarbonError, ValueError):
    """A trace file cannot be read.

    `.file` is its path, `.line` the number of the faulty line (from 1; None for the whole file), `.message` what was
    found and what was expected.
    """

    def __init__(self, file: Path, line: int | None, message: str) -> None:
        where = f"{file}, line {line}" if line is not None else str(file)
        super().__init__(f"{where}: {message}")
        self.file = file
        self.line = line
        self.message = message


class InvalidResponse(CarbonError):
    """A provider's response violates its protocol; the message names the field."""


class SourceUnavailable(CarbonError):
    """A provider is not reachable, fails, or is in its back-off time.

    `.retry_at` is the time of the next request (UTC), or None where the next call sends one.
    """

    def __init__(self, message: str, *, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class AccessDenied(CarbonError):
    """A provider refused the key (401) or the request (403).

    `.retry_at` is the time of the next request (UTC).
    """

    def __init__(self, message: str, *, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry_at = retry_at
