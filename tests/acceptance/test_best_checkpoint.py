"""A job of the browser's form with validation rows and early stopping, whose result is its best checkpoint."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from safetensors import safe_open
from sqlalchemy import func, select

from api.main import create_app
from greentune.client import Client
from store.tables import Checkpoint, EnergyInterval, Evaluation, Job
from tests.acceptance.conftest import Service, start_quick_service, wait_until
from tests.chromium import launch_chromium
from tests.cli.service import CommandRunner
from tests.databases import DatabasePool
from tests.keys import new_key
from tests.server import run_server

ROWS = "\n".join(json.dumps({"prompt": f"w{n} w1", "completion": " w7 w8 w9"}) for n in range(40))
# What is learned of the rows is wrong for these: their loss rises at first.
VALIDATION = "\n".join(json.dumps({"prompt": f"w{n} w2", "completion": " w30 w31"}) for n in range(12))
SETTINGS = {
    "epochs": "4",
    "learning_rate": "0.01",
    "scheduler": "cosine",
    "warmup_steps": "2",
    "eval_every": "2",
    "eval_unit": "steps",
    "early_stopping.patience": "2",
    "keep": "best",
    "max_new_tokens": "4",
}


def fill_form(page: Page, dataset: str, validation: Path) -> None:
    page.goto(f"/dashboard/submit?dataset={dataset}")
    page.locator("details.group").evaluate_all("groups => groups.forEach((group) => { group.open = true; })")
    page.get_by_label("Zone").select_option("X")
    page.locator("#validation-file").set_input_files(validation)
    expect(page.get_by_label("Validation dataset")).not_to_have_value("")
    for name, value in SETTINGS.items():
        field = page.locator(f'[name="hyperparameters.{name}"]')
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def submit_by_form(url: str, key: str, dataset: str, validation: Path) -> tuple[str, str]:
    """Submit the job, wait for its end, and return its id and its page's text."""
    with launch_chromium() as browser:
        page = browser.new_page(base_url=url)
        page.goto("/sign-in")
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Sign out").wait_for()
        fill_form(page, dataset, validation)
        page.get_by_role("button", name="Submit the job").click()
        page.wait_for_url("**/dashboard/jobs/job_*")
        job_id = page.url.rpartition("/")[2]
        with Client(url, key) as client:
            wait_until(f"{job_id} is over", lambda: client.job(job_id).is_over)
        page.reload()
        page.locator("#chart-tables").get_by_text("Evaluations").wait_for()
        return job_id, page.locator("main").inner_text()


@pytest.fixture(scope="module")
def service(databases: DatabasePool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with start_quick_service(databases, folder) as service:
        yield service


def test_page_command_line_client_and_database_have_the_same_best_result(service: Service, tmp_path: Path) -> None:
    validation, key = tmp_path / "validation.jsonl", new_key(service.settings)
    validation.write_text(VALIDATION)
    wait_until("the model is measured", lambda: service.get("/models")["data"][0]["parameters"] is not None)
    dataset = service.upload(ROWS)
    with run_server(create_app(service.settings)) as url:
        job_id, page = submit_by_form(url, key, dataset, validation)
        with Client(url, key) as client:
            job, listed = client.job(job_id), list(client.evaluations(job_id))
            epochs, curve = list(client.epochs(job_id)), client.series(job_id).evaluation
            card = client.download(job_id, "README.md", tmp_path).read_text()
            weights = client.download(job_id, "model.safetensors", tmp_path)
        shown = CommandRunner(url, key).shown("watch", job_id)

    assert job.status == "succeeded"
    assert job.hyperparameters["scheduler"] == "cosine"
    assert job.hyperparameters["early_stopping"] == {"patience": 2, "min_gain": 0.0}
    best = min(listed, key=lambda row: row.loss)
    assert job.best is not None
    assert (job.best.step, job.best.loss) == (best.step, best.loss)
    assert [row.step for row in listed if row.best] == [best.step]
    assert best.step < job.progress.steps_done < (job.progress.steps or 0)
    assert job.progress.share == 1.0
    assert job.progress.epochs_done == len(epochs)
    assert all(epoch.finished_at is not None for epoch in epochs)
    assert job.evaluation is not None
    assert job.evaluation["step"] == best.step
    assert job.evaluation["eval_loss"]["after"] == best.loss
    assert curve.step == [row.step for row in listed]

    with service.database.session() as session:
        row = session.get_one(Job, job_id)
        assert row.best == {"step": best.step, "epoch": best.epoch, "loss": best.loss}
        losses = select(Evaluation.loss).where(Evaluation.job_id == job_id).order_by(Evaluation.step)
        assert session.scalars(losses).all() == [row.loss for row in listed]
        marked = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.best)
        [kept] = session.scalars(marked).all()
        energy = select(func.sum(EnergyInterval.energy_kwh)).where(
            EnergyInterval.job_id == job_id, EnergyInterval.evaluation
        )
        assert session.scalar(energy) == pytest.approx(job.evaluation_kwh)
    assert kept.step == best.step
    assert 0 < job.evaluation_kwh < job.energy_kwh
    checkpoint = service.settings.job_dir(job_id) / kept.name / "weights.safetensors"
    with safe_open(checkpoint, "pt") as expected, safe_open(weights, "pt") as found:
        common = set(expected.keys()) & set(found.keys())
        assert common
        assert all((expected.get_tensor(name) == found.get_tensor(name)).all() for name in common)

    loss = f"{best.loss:.4g}"
    assert job.reason is not None
    assert job.reason in page
    assert f"best: {loss} after step {best.step}" in page
    assert f"weights after step {best.step}, the best evaluation's" in page
    assert re.search(r"kWh of it in evaluations", page)
    assert job.reason in shown
    assert f"best evaluation: loss {loss} after step {best.step}" in shown
    assert re.search(r"kWh, metered|of it in evaluations", shown)
    assert f"The weights are those after step {best.step}" in " ".join(card.split())
    assert "| of it in evaluations |" in card
