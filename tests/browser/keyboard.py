"""Use of a page by keyboard only."""

from playwright.sync_api import Page

MAX_TABS = 120


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focused element matches; fail where none does."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by {MAX_TABS} presses of the Tab key")


def type_over(page: Page, text: str) -> None:
    """Replace the text of the focused field."""
    page.keyboard.press("Control+a")
    page.keyboard.type(text)
