"""Screenshots of pages in `build/screenshots/`: wide and narrow, light and dark."""

from pathlib import Path
from typing import Literal

from playwright.sync_api import Page

FOLDER = Path(__file__).parents[2] / "build" / "screenshots"
WIDTHS = (1280, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def take_pictures(page: Page, name: str) -> None:
    """Write `NAME-WIDTH-SCHEME.png`; fail where a page is wider than its window."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(100)  # charts are redrawn in the next frames
            page.screenshot(path=FOLDER / f"{name}-{width}-{scheme}.png", full_page=True)
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} is {wider} px wider than a window of {width} px"
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 800})
