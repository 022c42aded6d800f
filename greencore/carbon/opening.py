"""Opens a source from its specification, such as `static` or `trace:es.csv?speed=480&anchor=...`."""

from collections.abc import Callable

from greencore.carbon.errors import InvalidSpec
from greencore.carbon.source import Source
from greencore.carbon.static import StaticSource
from greencore.carbon.trace import open_trace
from greencore.clock import Clock, utc_now


def open_source(spec: str, zone: str, *, clock: Clock = utc_now) -> Source:
    """Opens the source that `spec` names, for `zone`; `clock` tells it the present.

    `static` takes no argument; `trace:FILE` takes a CSV file, and `?speed=` and `&anchor=` after it. Raises
    InvalidSpec, listing what is known, for any other name; UnknownZone, InvalidTrace as the sources do.
    """
    name, colon, argument = spec.partition(":")
    opener = _OPENERS.get(name)
    if opener is None:
        raise InvalidSpec(f"unknown carbon source {spec!r}: expected one of {', '.join(KNOWN)}")
    return opener(argument if colon else None, zone, clock)


def _static(argument: str | None, zone: str, clock: Clock) -> Source:
    if argument is not None:
        raise InvalidSpec(f"the source static takes no argument, but was given {argument!r}")
    return StaticSource(zone, clock=clock)


def _trace(argument: str | None, zone: str, clock: Clock) -> Source:
    return open_trace(argument or "", zone, clock=clock)


KNOWN = ("static", "trace:FILE")

_OPENERS: dict[str, Callable[[str | None, str, Clock], Source]] = {"static": _static, "trace": _trace}
