"""The page of benchmarks is generated from the stored results."""

from benchmarks.page import PAGE, render_page


def test_the_page_is_generated_from_the_results() -> None:
    assert PAGE.read_text() == render_page()
