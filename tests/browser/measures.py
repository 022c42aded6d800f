"""Costs of a page: bytes on the wire, loading time, and the time to redraw its curves."""

import time

from playwright.sync_api import Page

# Time of all the work that a key causes: redrawing the four panels, including uPlot's microtasks.
FRAMES = """async () => {
    const panel = document.getElementById("chart-loss");
    const milliseconds = [];
    for (const key of ["+", "+", ...Array(12).fill("ArrowRight"), ...Array(12).fill("ArrowLeft"), "-", "0"]) {
        await new Promise(requestAnimationFrame);
        const begun = performance.now();
        panel.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        await new Promise((resolve) => setTimeout(resolve));
        milliseconds.push(performance.now() - begun);
    }
    return milliseconds;
}"""


def count_bytes(page: Page, *, cache: bool = False) -> list[int]:
    """Sizes on the wire, with headers, of everything that the page loads from now on; the list grows."""
    sizes: list[int] = []
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": not cache})
    network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    return sizes


def open_job(page: Page, job_id: str, hash: str = "") -> None:
    """Open the page of a job that has run, and wait until its curves are drawn."""
    page.goto(f"/dashboard/jobs/{job_id}{hash}")
    page.locator("#chart-emissions canvas").wait_for()
    page.wait_for_load_state("networkidle")


def frame_milliseconds(page: Page) -> list[float]:
    """Duration of each of 28 zooms and moves of a job's curves."""
    frames: list[float] = page.evaluate(FRAMES)
    return frames


def seconds_to_last_row(page: Page, address: str) -> float:
    """Time from requesting the jobs page to the last of its 50 rows."""
    begun = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.locator("tr[data-job]").nth(49).wait_for()
    return time.perf_counter() - begun
