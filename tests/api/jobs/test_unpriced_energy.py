"""Energy without a price is shown as unpriced wherever emissions are shown, and never as 0 g."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from cli.commands.results import EPOCH_COLUMNS
from cli.remote.figures import format_emissions
from cli.remote.watch_view import Snapshot, format_summary
from greentune.models import Epoch, Job
from store.accounting.emissions import EmissionsRepository
from store.database import Database
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval
from tests.api.conftest import Submit

pytestmark = pytest.mark.fault(number=12)


@pytest.fixture
def unpriced_job_id(finished_job_id: str, database: Database) -> str:
    """A finished job whose energy was closed without a price."""
    with database.session() as session:
        session.execute(
            update(EnergyInterval).values(
                emissions_gco2e=None, intensity_gco2e_per_kwh=None, intensity_source=None, settled=True
            )
        )
        job = JobRepository(session).lock(finished_job_id)
        assert job is not None
        EmissionsRepository(session).update_job_emissions(job)
    return finished_job_id


def read(client: TestClient, path: str) -> Any:
    response = client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


def test_responses_state_the_unpriced_energy(unpriced_job_id: str, client: TestClient) -> None:
    job = read(client, f"/jobs/{unpriced_job_id}")
    assert job["unpriced_kwh"] == job["energy_kwh"] == pytest.approx(0.0006)
    assert (job["emissions_gco2e"], job["emissions_basis"]["unpriced_kwh"]) == (0.0, pytest.approx(0.0006))
    assert read(client, "/jobs")["data"][0]["unpriced_kwh"] == pytest.approx(0.0006)

    [epoch] = read(client, f"/jobs/{unpriced_job_id}/epochs")["data"]
    assert (epoch["emissions_gco2e"], epoch["unpriced_kwh"]) == (None, pytest.approx(0.0006))

    curves = read(client, f"/jobs/{unpriced_job_id}/series")["energy"]
    assert curves["unpriced_kwh"] == curves["energy_kwh"]


def test_pages_show_a_dash_for_unknown_emissions(unpriced_job_id: str, client: TestClient) -> None:
    for path in ("/", f"/dashboard/jobs/{unpriced_job_id}"):
        markup = client.get(path).text
        assert "without 0.0006 unpriced kWh" in markup
        assert "– gCO2e" in markup
        assert "0 gCO2e<" not in markup.replace("0 gCO2e of it", "")
    assert "0.0006 kWh unpriced" in client.get(f"/dashboard/jobs/{unpriced_job_id}").text


def test_the_command_line_shows_a_dash_for_unknown_emissions(unpriced_job_id: str, client: TestClient) -> None:
    job = Job.model_validate(read(client, f"/jobs/{unpriced_job_id}"))
    [epoch] = map(Epoch.model_validate, read(client, f"/jobs/{unpriced_job_id}/epochs")["data"])

    assert job.known_gco2e is None
    assert format_emissions(job) == "– unpriced"
    [line] = [line for line in format_summary(Snapshot(job, epoch, None)) if line.startswith("emissions")]
    assert line.startswith("emissions: – gCO2e")
    assert "without 0.0006 unpriced kWh" in line
    assert EPOCH_COLUMNS["gCO2e"](epoch) == "– (0.0006 kWh unpriced)"


def test_partly_priced_emissions_are_shown_with_the_unpriced_energy(
    finished_job_id: str, database: Database, client: TestClient
) -> None:
    with database.session() as session:
        row = session.query(EnergyInterval).one()
        session.add(
            EnergyInterval(
                job_id=row.job_id,
                epoch=row.epoch,
                attempt=row.attempt,
                started_at=row.finished_at,
                finished_at=row.finished_at,
                cpu_kwh=0.0002,
                gpu_kwh=0.0,
                ram_kwh=0.0,
                method=row.method,
                intensity_estimated=True,
                pue=row.pue,
            )
        )
        job = JobRepository(session).lock(finished_job_id)
        assert job is not None
        job.energy_kwh += 0.0002
    job_out = Job.model_validate(read(client, f"/jobs/{finished_job_id}"))
    assert job_out.unpriced_kwh == pytest.approx(0.0002)
    assert job_out.known_gco2e == job_out.emissions_gco2e == pytest.approx(0.0006 * 1.2 * 212)
    assert format_emissions(job_out).endswith("est., part unpriced")
    [epoch] = read(client, f"/jobs/{finished_job_id}/epochs")["data"]
    assert (epoch["emissions_gco2e"], epoch["unpriced_kwh"]) == (None, pytest.approx(0.0002))
    assert read(client, f"/jobs/{finished_job_id}/series")["energy"]["unpriced_kwh"][-1] == pytest.approx(0.0002)


def test_a_job_without_energy_has_no_emissions(submit: Submit, client: TestClient) -> None:
    job = Job.model_validate(submit(zone="FR").json())
    assert (job.unpriced_kwh, job.known_gco2e) == (0.0, 0.0)


def test_the_metrics_include_the_unpriced_energy(unpriced_job_id: str, client: TestClient) -> None:
    assert 'greentune_unpriced_energy_kwh{zone="FR"} 0.0006' in client.get("/metrics").text


def test_unpriced_energy_is_counted_in_the_zone_in_which_it_was_used(
    unpriced_job_id: str, client: TestClient, database: Database
) -> None:
    with database.session() as session:
        job = JobRepository(session).lock(unpriced_job_id)
        assert job is not None
        job.zone = "SE"  # where it went on later
    told = client.get("/metrics").text
    assert 'greentune_unpriced_energy_kwh{zone="FR"} 0.0006' in told
    assert 'greentune_unpriced_energy_kwh{zone="SE"} 0.0\n' in told
