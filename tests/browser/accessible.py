"""Accessibility of pages, by axe-core's rules."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

GRAVE = ("serious", "critical")


def check_accessible(page: Page) -> None:
    """Fail with every serious or critical finding of axe-core."""
    found = Axe().run(page).response["violations"]
    grave = [
        f"{finding['id']}: {finding['help']}\n  "
        + "\n  ".join(f"{node['html'][:200]} ({node['failureSummary'].splitlines()[-1]})" for node in finding["nodes"])
        for finding in found
        if finding["impact"] in GRAVE
    ]
    assert not grave, "\n".join(grave)
