"""The page of benchmarks says what was measured, and nothing else."""

from benchmarks.page import PAGE, render_page


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text() == render_page()
