"""A page used as somebody does who has no mouse."""

from playwright.sync_api import Page

MAX_TABS = 120


def tab_to(page: Page, selector: str) -> None:
    """Goes on by the Tab key until what has the focus matches; fails where it never does."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by {MAX_TABS} presses of the Tab key")


def type_over(page: Page, text: str) -> None:
    """Writes in place of what stands in the field that has the focus."""
    page.keyboard.press("Control+a")
    page.keyboard.type(text)
