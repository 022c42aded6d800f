"""What can go wrong between a grid's carbon intensity and whoever asks for it."""

from datetime import datetime
from pathlib import Path


class CarbonError(Exception):
    """Any failure to obtain or to use a carbon intensity."""


class InvalidReading(CarbonError, ValueError):
    """A reading, or a series of readings, that contradicts itself."""


class InvalidSpec(CarbonError, ValueError):
    """A source specification that names no known source, or misuses one of its options."""


class NoReading(CarbonError, LookupError):
    """A source or a series holds no reading for the time that was asked about."""


class UnknownZone(CarbonError, LookupError):
    """A source knows nothing about the zone.

    `.zone` is the zone that was asked for.
    """

    def __init__(self, zone: str, message: str) -> None:
        super().__init__(f"unknown zone {zone!r}: {message}")
        self.zone = zone


class InvalidTrace(CarbonError, ValueError):
    """A trace file that cannot be replayed.

    `.file` is its path, `.line` the number of the offending line (from 1), or None where the file as a whole
    is at fault, and `.message` what was found and what was expected.
    """

    def __init__(self, file: Path, line: int | None, message: str) -> None:
        where = f"{file}, line {line}" if line is not None else str(file)
        super().__init__(f"{where}: {message}")
        self.file = file
        self.line = line
        self.message = message


class InvalidResponse(CarbonError):
    """A provider answered something that is not what its protocol says; the message names the field."""


class SourceUnavailable(CarbonError):
    """A provider cannot be asked, or gave no usable answer.

    `.retry_at` is when it will be asked again, in UTC, or None where the next call asks it.
    """

    def __init__(self, message: str, *, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class AccessDenied(CarbonError):
    """A provider refused the key (401) or what was asked for under it (403).

    `.retry_at` is when it will be asked again, in UTC.
    """

    def __init__(self, message: str, *, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry_at = retry_at
