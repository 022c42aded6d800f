"""Formats of figures: the server's pages and their scripts agree."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Page

from api import figures

NUMBERS = [0, 1, -1, 0.5, 2.5, 1234.5, 1235.5, 0.125, 1e-3, 1e3, 1e4, 99999, 0.99995, 1.00005, 3.14159, -271.828, 1e-6]
TINY = [9.99e-7, 1.2345e-8, 4e-7, -5.55e-12]
SHARES = [0.0, -0.0004, 0.0004, 0.00049999, -0.123, 0.4204, 1.0, 0.0625, 0.1875]
SECONDS = [0, 0.4, 59.5, 60, 3599.6, 86_399, 90_061, 1e6]
BYTES = [0, 1023, 1024, 1536, 10**6, 123_456_789, 2**40]
TIMES = [0.0, 1_795_000_000.0, 1_795_000_000.999]


@pytest.mark.parametrize(
    ("name", "server", "values"),
    [
        ("number", figures.format_number, [*NUMBERS, *TINY, None]),
        ("percent", figures.format_percent, [*SHARES, None]),
        ("duration", figures.format_duration, [*SECONDS, None]),
        ("size", figures.format_size, BYTES),
    ],
)
def test_a_figure_has_the_same_format_on_the_server_and_in_the_browser(
    page: Page, name: str, server: Callable[[Any], str], values: list[float | None]
) -> None:
    assert in_browser(page, name, values) == [server(value) for value in values]


def test_a_time_has_the_same_format_on_the_server_and_in_the_browser(page: Page) -> None:
    shown = in_browser(page, "time", [seconds * 1000 for seconds in TIMES])

    assert shown == [figures.format_time(datetime.fromtimestamp(seconds, UTC)) for seconds in TIMES]


def test_a_saving_that_rounds_to_nothing_has_no_sign() -> None:
    assert figures.format_percent(-0.0004) == "0.0 %"
    assert figures.format_percent(-0.0006) == "−0.1 %"


def in_browser(page: Page, name: str, values: list[Any]) -> list[str]:
    """Each value as format.js formats it."""
    written: list[str] = page.evaluate(
        "async ([name, values]) => { const format = await import('/static/js/format.js'); "
        "return values.map((value) => format[name](value)); }",
        [name, values],
    )
    return written
