"""Formats numbers, times, durations and sizes for display: few digits, a dash for unknown values."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

UNKNOWN = "–"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def format_value(given: Any) -> str:
    """Format a value of an event: a float with few digits, anything else as text."""
    return format_number(given) if isinstance(given, float) else str(given)


def format_json(given: Any) -> str:
    """Format a value as indented JSON."""
    return json.dumps(given, indent=2, ensure_ascii=False)


def format_number(value: float | None, digits: int = 4) -> str:
    """Format a number with `digits` significant digits; in scientific notation only below 10⁻⁶."""
    if value is None or not math.isfinite(value):
        return UNKNOWN if value is None else str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - magnitude)
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_forms(forms: Mapping[str, int]) -> str:
    """Format the number of a dataset's rows by form: "messages 1,200, text 3"."""
    return ", ".join(f"{form} {rows:,}" for form, rows in forms.items())


def format_percent(share: float | None) -> str:
    """Format a share as a percentage with one decimal; a value that rounds to 0 has no sign."""
    return UNKNOWN if share is None else f"{round(share * 100, 1) + 0.0:.1f} %".replace("-", "−")


def format_time(value: datetime | None) -> str:
    """Format a time in UTC, to the second."""
    return UNKNOWN if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_minute(time: datetime, now: datetime) -> str:
    """Format a time (UTC) to the minute; with the year where it is not the current one."""
    utc = time.astimezone(UTC)
    year = "" if utc.year == now.year else f"{utc.year} "
    return f"{utc.day} {MONTHS[utc.month - 1]} {year}{utc:%H:%M}"


def format_duration(seconds: float | None) -> str:
    """Format a duration in its two largest units."""
    if seconds is None:
        return UNKNOWN
    left = round(seconds)
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def format_size(count: int) -> str:
    """Format a number of bytes in its largest unit."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{format_number(value, 3)} {unit}"
