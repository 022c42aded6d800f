"""`/dashboard/grid` in a real browser: each zone's intensity, forecast and cleanest window."""

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from greencore.carbon import Reading
from greencore.clock import HOUR
from runtime.settings import Settings
from store.intensity.provider_health import ProviderRepository
from store.intensity.readings import GridRepository
from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard
from tests.browser.pictures import take_pictures
from tests.browser.stage import hour_before, stage_grid, stage_workers


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Zones with readings, with stale ones, with a yearly mean only, and one without any intensity."""
    zones = {
        "DE": "energy-charts",
        "FR": "energy-charts",
        "GB": "uk",
        "US-CAL-CISO": "static:USA",
        "PL": "energy-charts",
    }
    return settings.model_copy(update={"zones": {**zones, "MARS": "uk"}})


def hour(zone: str, start: datetime, gco2e_per_kwh: float, source: str = "energy-charts") -> Reading:
    return Reading(
        zone=zone,
        start=start,
        end=start + HOUR,
        gco2e_per_kwh=gco2e_per_kwh,
        source=source,
        fetched_at=datetime.now(UTC),
    )


def test_every_zone_shows_its_intensity_forecast_and_what_is_missing(page: Page, dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    stage_grid(dashboard.database, now=now)
    stage_workers(dashboard.database, now=now)
    with dashboard.database.session() as session:
        GridRepository(session).put([hour("PL", now - 1.5 * HOUR, 700.0)])

    page.goto("/dashboard/grid")

    france = page.get_by_role("region", name="FR", exact=True)
    expect(france).to_contain_text("France")
    expect(france).to_contain_text("measured, average")
    expect(france).to_contain_text("energy-charts")
    expect(france).to_contain_text("1 worker")
    expect(france).to_contain_text("the provider's forecast")
    expect(france.get_by_role("img")).to_be_visible()
    expect(page.get_by_role("region", name="PL", exact=True)).to_contain_text("which ended")
    expect(page.get_by_role("region", name="PL", exact=True)).to_contain_text("stale (energy-charts)")
    expect(page.get_by_role("region", name="PL", exact=True)).to_contain_text("There is no forecast")
    california = page.get_by_role("region", name="US-CAL-CISO", exact=True)
    expect(california).to_contain_text("United States")
    expect(california).to_contain_text("used instead: the yearly mean")
    expect(page.get_by_role("region", name="MARS", exact=True)).to_contain_text("No intensity is known yet")
    names = page.locator(".zone h2").all_text_contents()
    assert names.index("FR") < names.index("PL") < names.index("MARS")
    france.locator("summary").click()
    expect(france.get_by_role("row").last).to_be_visible()
    # The header, and the hours that the next 24 h overlap: 25, or 24 from a full hour on.
    rows = {25 + (time.minute > 0) for time in (now, datetime.now(UTC))}
    assert france.get_by_role("row").count() in rows
    check_accessible(page)
    take_pictures(page, "grid-all")


def test_the_cleanest_window_has_the_length_chosen(page: Page, dashboard: Dashboard) -> None:
    # In the middle of an hour of the forecast, whenever the test runs, so that "starts in 3 h" holds until its end.
    now = datetime.now(UTC)
    begin = now.replace(minute=now.minute // 5 * 5, second=0, microsecond=0) - timedelta(minutes=25)
    values = [400.0, 400.0, 90.0, 400.0, 200.0, 200.0, 200.0, *[400.0] * 20]
    with dashboard.database.session() as session:
        grid = GridRepository(session)
        grid.put([hour("DE", begin, values[0])])
        later = [hour("DE", begin + offset * HOUR, value) for offset, value in enumerate(values) if offset]
        grid.put_forecast("DE", "average", later, at=begin)
    germany = page.get_by_role("region", name="DE", exact=True)

    page.goto("/dashboard/grid")
    expect(germany).to_contain_text(f"{begin + 4 * HOUR:%H:%M}–{begin + 7 * HOUR:%H:%M} UTC")
    expect(germany).to_contain_text("starts in 3 h")
    expect(germany).to_contain_text("50.0 % cleaner than now")

    page.get_by_role("link", name="1 h").click()
    expect(germany).to_contain_text(f"{begin + 2 * HOUR:%H:%M}–{begin + 3 * HOUR:%H:%M} UTC")
    expect(germany).to_contain_text("77.5 % cleaner than now")
    expect(page.get_by_role("link", name="1 h")).to_have_attribute("aria-current", "true")


def test_an_unchanged_grid_is_answered_304_until_there_is_a_new_reading(page: Page, dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    stage_grid(dashboard.database, now=now)
    first = page.request.get("/dashboard/grid?hours=6")
    unchanged = page.request.get("/dashboard/grid?hours=6", headers={"If-None-Match": first.headers["etag"]})
    if now.replace(second=0, microsecond=0) == datetime.now(UTC).replace(second=0, microsecond=0):
        assert unchanged.status == 304

    with dashboard.database.session() as session:
        GridRepository(session).put([hour("FR", hour_before(now), 12.0)])
    changed = page.request.get("/dashboard/grid?hours=6", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status == 200
    assert ">12<span" in changed.text()


def test_a_sources_error_is_shown_from_its_first_failure_until_it_answers(page: Page, dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    answered = now - timedelta(days=2)
    stage_grid(dashboard.database, now=now)
    page.goto("/dashboard/grid")
    france = page.get_by_role("region", name="FR", exact=True)
    expect(france).to_contain_text("measured, average")
    expect(page.locator(".fault")).to_have_count(0)
    first = page.request.get("/dashboard/grid").headers["etag"]

    with dashboard.database.session() as session:
        providers = ProviderRepository(session)
        providers.record_success("FR", "energy-charts", at=answered)
        for minutes in (3, 2, 1):
            error = "energy-charts: answered 503 <b>Service Unavailable</b>"
            providers.record_failure("FR", "energy-charts", at=now - timedelta(minutes=minutes), error=error)
        providers.record_failure("MARS", "uk", at=now, error="there is no such zone")
    again = page.request.get("/dashboard/grid", headers={"If-None-Match": first})
    assert again.status == 200
    page.reload()

    expect(france.locator(".fault")).to_have_text(
        f"energy-charts has failed 3 times in a row since {answered:%Y-%m-%d %H:%M} UTC: "
        "energy-charts: answered 503 <b>Service Unavailable</b>"
    )
    mars = page.get_by_role("region", name="MARS", exact=True)
    expect(mars.locator(".fault")).to_have_text("uk has failed once and has never answered: there is no such zone")
    check_accessible(page)
    take_pictures(page, "grid-fault")

    with dashboard.database.session() as session:
        ProviderRepository(session).record_success("FR", "energy-charts", at=now)
    page.reload()
    expect(france).to_contain_text("measured, average")
    expect(france.locator(".fault")).to_have_count(0)
