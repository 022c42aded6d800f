"""The curves on the page of a job: their values, their zoom, and their speed for a long run."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import FloatRect, Page, expect
from sqlalchemy import text

from store.lifecycle.status import JobStatus
from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard
from tests.browser.long_run import stage_long_run
from tests.browser.measures import count_bytes, frame_milliseconds, open_job
from tests.browser.pictures import take_pictures
from tests.browser.stage import stage_dataset, stage_grid, stage_job
from tests.browser.watch import monitor_of

LARGEST_BYTES = 300_000
SLOWEST_FRAME_MS = 50.0
ZOOM = re.compile(r"#from=.+&to=.+")

# The hours before it are the cleanest of that day and the next in the staged grid, so that the counterfactuals of a job
# that ends then are within its own time, and so are the panels.
AFTER_THE_CLEANEST_HOURS = datetime(2026, 3, 6, 16, tzinfo=UTC)


def staged(dashboard: Dashboard, status: JobStatus, *, now: datetime | None = None, **columns: Any) -> str:
    now = now or datetime.now(UTC)
    stage_grid(dashboard.database, now=now)
    dataset = stage_dataset(dashboard.database, dashboard.settings, now=now)
    return stage_job(dashboard.database, dashboard.settings, dataset, status, now=now, **columns)


@pytest.fixture
def long_run(dashboard: Dashboard) -> str:
    """A job that has succeeded after a hundred thousand steps and ten thousand intervals."""
    job_id = staged(dashboard, JobStatus.SUCCEEDED)
    stage_long_run(dashboard.database, job_id, datetime.now(UTC) - timedelta(days=8))
    return job_id


def box_of(page: Page, panel: str) -> FloatRect:
    """Position and size of a panel in the window."""
    over = page.locator(f"#chart-{panel} .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    return box


def figures(page: Page, module: str, call: str) -> Any:
    """Result of a call in one of the page's modules."""
    return page.evaluate(f"import('/static/js/{module}').then((module) => module.{call})")


def test_a_long_run_loads_in_300_kb_and_draws_within_50_ms(page: Page, long_run: str) -> None:
    sizes = count_bytes(page)

    open_job(page, long_run)
    page.locator("#map-grids canvas").first.wait_for()

    assert len(sizes) > 15, "the style sheets, the scripts, the curves and the selections at least"
    assert sum(sizes) < LARGEST_BYTES

    frames = frame_milliseconds(page)
    median = sorted(frames)[len(frames) // 2]
    assert median < SLOWEST_FRAME_MS

    expect(page.locator("#chart-bands")).to_contain_text("very clean (0–50)")
    expect(page.locator("#chart-bands")).to_contain_text("paused: no worker ran")
    expect(page.locator("#chart-counterfactuals")).to_contain_text("all the work at once: 15000")
    check_accessible(page)
    take_pictures(page, "job-long-run")


def test_a_zoom_fetches_finer_curves_survives_a_reload_and_0_ends_it(page: Page, long_run: str) -> None:
    open_job(page, long_run)
    watch = monitor_of(page)
    box = box_of(page, "loss")
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 32, steps=3)
    with page.expect_response(lambda response: "start=" in response.url) as finer:
        page.mouse.up()
    steps = finer.value.json()["loss"]["step"]

    assert len(steps) > 300
    assert 4_000 < steps[-1] - steps[0] < 7_000, "a twentieth of the run, not all of it"
    expect(page).to_have_url(ZOOM)
    zoomed = page.url

    page.reload()
    page.locator("#chart-emissions canvas").wait_for()
    expect(page.get_by_role("button", name="Show all")).to_be_enabled()
    assert page.url == zoomed
    page.wait_for_load_state("networkidle")
    assert sum("start=" in request.url for request in watch.requests) == 2

    page.locator("#chart-power").focus()
    page.keyboard.press("0")
    expect(page).not_to_have_url(ZOOM)
    expect(page.get_by_role("button", name="Show all")).to_be_disabled()
    page.get_by_role("button", name="Zoom in").click()
    expect(page).to_have_url(ZOOM)
    page.locator("#chart-rho .u-over").dblclick()
    expect(page).not_to_have_url(ZOOM)


def test_one_line_shows_the_values_of_all_panels_by_mouse_and_by_keyboard(page: Page, dashboard: Dashboard) -> None:
    job_id = staged(dashboard, JobStatus.SUCCEEDED, epochs_done=8, now=AFTER_THE_CLEANEST_HOURS)
    with dashboard.database.session() as session:
        session.execute(text("DELETE FROM energy_intervals WHERE job_id = :id AND epoch = 5"), {"id": job_id})
    open_job(page, job_id)
    readout = page.locator("#chart-readout")
    box = box_of(page, "power")

    page.mouse.move(box["x"] + 2.5 / 8 * box["width"], box["y"] + 30)
    for what in (
        "2026-03-06 12:",
        "UTC",
        "epoch 3",
        "gCO2e/kWh",
        "ρ ",
        " W",
        "at step ",
        "smoothed ",
        "emitted ",
        "estimated: all the work at once",
    ):
        expect(readout).to_contain_text(what)
    page.mouse.move(box["x"] + 4.5 / 8 * box["width"], box["y"] + 30)
    expect(readout).to_contain_text("paused")
    page.mouse.move(0, 0)
    expect(readout).to_contain_text("Point at a panel")

    page.locator("#chart-power").focus()
    page.keyboard.press("Shift+ArrowRight")
    expect(readout).to_contain_text("UTC")
    before = readout.inner_text()
    page.keyboard.press("Shift+ArrowRight")
    expect(readout).not_to_have_text(before)


def test_the_figures_of_every_panel_are_in_a_table(page: Page, dashboard: Dashboard) -> None:
    open_job(page, staged(dashboard, JobStatus.SUCCEEDED, epochs_done=8))

    for name, heading in (("ρ", "ρ reached"), ("Loss", "Mean of its stretch"), ("Evaluations", "Token accuracy")):
        page.get_by_text(f"{name}: the data as a table", exact=True).click()
        expect(page.get_by_role("region", name=name, exact=True).get_by_role("columnheader")).to_contain_text([heading])
    expect(page.get_by_role("region", name="ρ", exact=True).get_by_role("row")).to_have_count(9)


def test_a_running_jobs_curves_grow_while_the_zoom_stays(page: Page, dashboard: Dashboard) -> None:
    job_id = staged(dashboard, JobStatus.RUNNING, steps_an_epoch=40)
    open_job(page, job_id)
    expect(page.locator("#chart-counterfactuals")).to_contain_text("computed once the job is over")
    page.get_by_role("button", name="Zoom in").click()
    expect(page).to_have_url(ZOOM)
    zoomed = page.url
    page.get_by_text("Loss: the data as a table", exact=True).click()
    rows = page.get_by_role("region", name="Loss", exact=True).get_by_role("row")
    expect(rows).to_have_count(21)

    with dashboard.database.session() as session:
        session.execute(text("INSERT INTO steps SELECT :id, 21, now(), 1.25"), {"id": job_id})
        session.execute(text("UPDATE jobs SET revision = revision + 1 WHERE id = :id"), {"id": job_id})

    expect(rows).to_have_count(22)
    assert page.url == zoomed
    expect(page.get_by_role("button", name="Show all")).to_be_enabled()


def test_a_job_that_has_not_run_describes_the_curves_and_map_to_come(page: Page, dashboard: Dashboard) -> None:
    page.goto(f"/dashboard/jobs/{staged(dashboard, JobStatus.QUEUED)}")
    page.wait_for_load_state("networkidle")

    expect(page.locator("#chart-empty")).to_contain_text("Nothing has run yet")
    expect(page.locator("#chart-body")).to_be_hidden()
    expect(page.locator("#map-note")).to_contain_text("No epoch is over yet")


def test_smoothing_weights_by_steps_and_does_not_overweight_the_first_value(page: Page) -> None:
    module = "job/chart_smoothing.js"

    even = figures(page, module, "smoothed([1, 2, 3], [4, 4, 4], 10)")
    assert even == [pytest.approx(4)] * 3
    first, second = figures(page, module, "smoothed([1, 2], [0, 1], 1000)")
    assert (first, second) == (0, pytest.approx(0.5, abs=0.01)), "two of a thousand steps have the same weight"
    assert figures(page, module, "smoothed([1, 2, 3], [2, null, 2], 10)") == [2, None, 2]
    near, far = (figures(page, module, f"smoothed([1, {step}], [0, 1], 10)[1]") for step in (2, 500))
    assert near < 0.6 < 0.99 < far, "a point has the weight of the steps that it represents"
    assert figures(page, module, "windowOf([1, 100000])") == 1000


def test_finer_curves_replace_the_coarser_ones_within_their_time_only(page: Page) -> None:
    def energy(start: list[int], end: list[int], total: list[float]) -> dict[str, list[Any]]:
        return {"start": start, "end": end, "energy_kwh": total, "emissions_gco2e": total}

    whole = {
        "loss": {"step": [1, 50, 99], "at": [1, 50, 99], "value": [1, 2, 3]},
        "energy": energy([0, 40], [40, 100], [4, 10]),
    }
    fine = {
        "loss": {"step": [40, 60], "at": [40, 60], "value": [7, 8]},
        "energy": energy([30, 40, 50], [40, 50, 60], [4, 5, 6]),
    }

    merged = figures(page, "job/chart_columns.js", f"merged({json.dumps(whole)}, {json.dumps(fine)})")

    assert merged["loss"] == {"step": [1, 40, 60, 99], "at": [1, 40, 60, 99], "value": [1, 7, 8, 3]}
    assert merged["energy"] == energy([0, 30, 40, 50, 60], [30, 40, 50, 60, 100], [3, 4, 5, 6, 10])
