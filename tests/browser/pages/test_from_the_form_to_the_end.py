"""A job submitted in the form, paused, resumed and watched to its end, with a real scheduler and workers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import text

from api.figures import format_number, format_percent
from api.main import create_app
from tests.acceptance.conftest import Service, start_quick_service, wait_until
from tests.browser.conftest import Dashboard
from tests.cli.conftest import GreentuneProcess
from tests.cli.service import CommandRunner
from tests.databases import DatabasePool
from tests.keys import new_key
from tests.server import run_server

PATIENCE_MS = 120_000
METERED = text("SELECT sum(cpu_kwh + gpu_kwh + ram_kwh), sum(emissions_gco2e) FROM energy_intervals WHERE job_id = :id")
BEST = text("SELECT best, steps, steps_done, evaluation, name FROM jobs WHERE id = :id")
KEPT = text("SELECT step FROM checkpoints WHERE job_id = :id AND best")
ROWS = "\n".join(json.dumps({"prompt": f"w{n % 60} w1 w2 " * 4, "completion": " w7 w8 w9"}) for n in range(240))


@pytest.fixture(scope="module")
def service(databases: DatabasePool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A scheduler, a prepare worker and a training worker, and a small model."""
    with start_quick_service(databases, tmp_path_factory.mktemp("service")) as service:
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
    page.get_by_label("Upload a file", exact=True).set_input_files(rows)
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


def open_group(page: Page, title: str) -> Locator:
    """Unfold a group of the form's settings."""
    page.locator("summary").get_by_text(title, exact=True).click()
    return page.get_by_role("group", name=title, exact=True)


def test_a_recipe_of_the_form_ends_early_with_the_weights_of_its_best_evaluation(
    page: Page, service: Service, dashboard: Dashboard, tmp_path: Path
) -> None:
    rows, validation = tmp_path / "rows.jsonl", tmp_path / "validation.jsonl"
    lines = ROWS.splitlines(keepends=True)
    rows.write_text("".join(lines[:80]))
    # Learning the completions of the one makes the other's less likely.
    validation.write_text("".join(lines[:8]).replace("w7 w8 w9", "w30 w31 w32").replace("w1 w2", "w2 w1"))

    page.goto("/dashboard/submit")
    page.get_by_label("Name", exact=True).fill("Cosine, stopped early")
    page.get_by_label("Model", exact=True).select_option("small")
    page.get_by_label("Upload a file", exact=True).set_input_files(rows)
    page.get_by_label("Upload a file to evaluate on").set_input_files(validation)
    page.get_by_label("Zone", exact=True).select_option("X")
    page.get_by_label("Epochs", exact=True).fill("4")
    page.get_by_label("Learning rate", exact=True).fill("3e-3")
    optimiser, evaluation = open_group(page, "Optimiser"), open_group(page, "Evaluation")
    optimiser.get_by_label("Scheduler").select_option("cosine")
    optimiser.get_by_label("Warmup steps").fill("3")
    evaluation.get_by_label("Eval every").fill("5")
    evaluation.get_by_label("Max new tokens").fill("4")
    evaluation.get_by_label("Eval unit").select_option("steps")
    evaluation.get_by_label("Keep").select_option("best")
    open_group(page, "Early stopping").get_by_label("Patience").fill("2")
    expect(page.get_by_role("region", name="Estimate")).to_contain_text("gCO2e", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url("**/dashboard/jobs/job_*")
    job_id = page.url.rsplit("/", 1)[1]
    expect(page.locator("#job-title .status")).to_have_text("succeeded", timeout=PATIENCE_MS)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cosine, stopped early")

    # The database, the interface, the terminal, the page and the model card say the same.
    with service.database.engine.connect() as connection:
        stored = connection.execute(BEST, {"id": job_id}).one()
        kept = connection.execute(KEPT, {"id": job_id}).scalars().all()
    assert kept == [stored.best["step"]]
    assert stored.best["step"] < stored.steps_done < stored.steps
    assert stored.evaluation["step"] == stored.best["step"]
    job = service.job(job_id)
    run = CommandRunner(dashboard.url, new_key(service.settings))
    for answer in (job, run.json("jobs", "show", job_id), run.json("watch", job_id)):
        assert (answer["name"], answer["best"]) == (stored.name, stored.best)
        assert answer["evaluation"]["eval_loss"]["after"] == pytest.approx(stored.best["loss"])
        chosen = answer["hyperparameters"]
        assert (chosen["scheduler"], chosen["warmup_steps"], chosen["keep"]) == ("cosine", 3, "best")
        assert chosen["early_stopping"]["patience"] == 2
        assert answer["validation_dataset"] not in (None, answer["dataset"])
    page.reload()
    best = f"{format_number(stored.best['loss'])} after step {stored.best['step']}"
    expect(page.get_by_text(f"best: {best}")).to_be_visible()
    expect(page.get_by_text(f"weights after step {stored.best['step']}, the best evaluation's")).to_be_visible()
    assert f"best evaluation: loss {best}" in run.shown("watch", job_id)
    [card] = [run("download", job_id, "README.md", "--output", str(tmp_path))]
    assert card.exit_code == 0, card.output
    assert "Cosine, stopped early" in (tmp_path / "README.md").read_text()
