"""A job submitted in the form, paused, resumed and watched to its end, with a real scheduler and workers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import text

from api.figures import format_number, format_percent
from api.main import create_app
from runtime.settings import Settings
from tests.acceptance.conftest import Service, start_quick_service, wait_until
from tests.browser.conftest import Dashboard
from tests.cli.conftest import GreentuneProcess
from tests.cli.service import CommandRunner
from tests.keys import new_key
from tests.server import run_server

PATIENCE_MS = 120_000
METERED = text("SELECT sum(cpu_kwh + gpu_kwh + ram_kwh), sum(emissions_gco2e) FROM energy_intervals WHERE job_id = :id")
ROWS = "\n".join(json.dumps({"prompt": f"w{n % 60} w1 w2 " * 4, "completion": " w7 w8 w9"}) for n in range(240))


@pytest.fixture
def service(settings: Settings, tmp_path: Path) -> Iterator[Service]:
    """A scheduler, a prepare worker and a training worker, and a small model."""
    with start_quick_service(settings, tmp_path) as service:
        yield service


@pytest.fixture
def dashboard(service: Service) -> Iterator[Dashboard]:
    with run_server(create_app(service.settings)) as url:
        yield Dashboard(url, service.settings, service.database)


def test_a_job_is_submitted_in_the_form_paused_resumed_and_watched_to_its_end(
    page: Page, service: Service, dashboard: Dashboard, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(ROWS)

    # Submit: the dataset is uploaded in the form, the estimate appears by itself.
    page.goto("/dashboard/submit")
    page.get_by_label("Model", exact=True).select_option("small")
    page.get_by_label("Upload a file").set_input_files(rows)
    page.get_by_label("Zone", exact=True).select_option("X")
    page.get_by_label("Epochs", exact=True).fill("4")
    expect(page.get_by_role("region", name="Estimate")).to_contain_text("gCO2e", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url("**/dashboard/jobs/job_*")
    job_id = page.url.rsplit("/", 1)[1]
    status = page.locator("#job-title .status")

    # Watch, pause and resume on the page.
    expect(status).to_have_text("running", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Pause").click()
    expect(status).to_have_text("paused", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Resume").click()
    expect(status).to_have_text("running", timeout=PATIENCE_MS)

    key = new_key(service.settings)
    environment = {"GREENTUNE_URL": dashboard.url, "GREENTUNE_KEY": key}
    watched = GreentuneProcess("watch", job_id, "--json", environment=environment)
    expect(status).to_have_text("succeeded", timeout=PATIENCE_MS)
    assert watched.finish() == 0, watched.output
    watched.close()
    followed = json.loads(watched.lines[-1])

    # The terminal, the page, the interface and the database agree once the emissions are settled.
    wait_until("its emissions are settled", lambda: service.job(job_id)["emissions_basis"]["status"] == "settled")
    job, watched_again = service.job(job_id), CommandRunner(dashboard.url, key).json("watch", job_id)
    for figure in ("status", "energy_kwh", "loss", "rho"):
        assert followed[figure] == job[figure], figure
    with service.database.engine.connect() as connection:
        kwh, gco2e = connection.execute(METERED, {"id": job_id}).one()
    assert job["energy_kwh"] == pytest.approx(kwh)
    assert job["emissions_gco2e"] == pytest.approx(gco2e)
    for figure in ("status", "energy_kwh", "emissions_gco2e", "loss", "rho"):
        assert watched_again[figure] == job[figure], figure
    page.reload()
    for label, figure in (
        ("Energy", f"{format_number(job['energy_kwh'])} kWh"),
        ("Emissions", f"{format_number(job['emissions_gco2e'])} gCO2e"),
        ("Loss", format_number(job["loss"])),
        ("ρ asked", format_number(job["rho"])),
        ("Saved", format_percent(job["less_work_saving"])),
        ("Saved", format_percent(job["moved_in_time_saving"])),
    ):
        tile = page.locator("#state .tiles > div").filter(
            has=page.locator("dt", has_text=re.compile(rf"^{label}( est\.)?$"))
        )
        expect(tile).to_contain_text(figure)
    page.goto("/")
    expect(page.get_by_role("row").filter(has_text=job_id[-8:])).to_contain_text(
        f"{format_number(job['emissions_gco2e'])} gCO2e"
    )
