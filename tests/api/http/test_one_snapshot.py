"""One ETag identifies one body: a response is read from one snapshot."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.charts import SeriesRepository
from store.accounting.emissions import EmissionsRepository
from store.database import Database
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, Epoch, Job

pytestmark = pytest.mark.fault(number=26)


def change(database: Database, job_id: str) -> None:
    """Write like a worker between two statements of a reader."""
    with database.session() as session:
        job = session.get_one(Job, job_id, with_for_update=True)
        job.energy_kwh = 7.0
        session.execute(
            update(EnergyInterval)
            .where(EnergyInterval.job_id == job_id)
            .values(cpu_kwh=7.0, method={"cpu": "another meter"}, pue=3.0)
        )
        session.execute(update(Epoch).where(Epoch.job_id == job_id).values(rho_asked=0.123))


@pytest.mark.parametrize(
    ("path", "repository", "method"),
    [
        ("/jobs/{job}", JobRepository, "emissions_basis"),
        ("/jobs/{job}", EmissionsRepository, "get_settlement_by_job"),
        ("/jobs", JobRepository, "emissions_basis"),
        ("/jobs/{job}/series", SeriesRepository, "energy"),
        ("/jobs/{job}/selection", JobRepository, "selections"),
        ("/jobs/{job}/epochs", JobRepository, "epoch_costs"),
        ("/dashboard/jobs/{job}", JobRepository, "emissions_basis"),
        ("/", JobRepository, "emissions_basis"),
    ],
)
def test_a_write_between_two_statements_is_not_in_the_response(
    client: TestClient,
    finished_job_id: str,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    repository: type,
    method: str,
) -> None:
    address = path.format(job=finished_job_id)
    before = client.get(address)
    read: Callable[..., Any] = getattr(repository, method)
    changed: list[bool] = []

    def read_late(*arguments: Any, **named: Any) -> Any:
        if not changed:
            changed.append(True)
            change(database, finished_job_id)
        return read(*arguments, **named)

    monkeypatch.setattr(repository, method, read_late)

    meanwhile = client.get(address)

    assert changed
    assert (meanwhile.headers.get("etag"), meanwhile.text) == (before.headers.get("etag"), before.text)
    after = client.get(address)
    assert after.text != before.text
    if "etag" in before.headers:
        assert after.headers["etag"] != before.headers["etag"]


@pytest.mark.parametrize(
    ("pues", "expected"),
    [
        ([1.0] * 9, 1.0),
        ([1.1] * 9, 1.1),
        ([1.2] * 9, 1.2),
        ([1.37] * 9, 1.37),
        ([1.0, 1.5] * 4 + [1.0], None),
    ],
)
def test_the_mean_pue_is_within_the_range_of_its_values(
    client: TestClient, finished_job_id: str, database: Database, pues: list[float], expected: float | None
) -> None:
    with database.session() as session:
        [first] = session.query(EnergyInterval).where(EnergyInterval.job_id == finished_job_id).all()
        columns = [column.key for column in EnergyInterval.__table__.columns if column.key != "id"]
        values = {name: getattr(first, name) for name in columns}
        session.delete(first)
        session.flush()
        for number, pue in enumerate(pues):
            kwh = 0.1 / 3 / (number + 1) + 1e-9
            session.add(EnergyInterval(**values | {"cpu_kwh": kwh, "ram_kwh": 0.0, "pue": pue}))

    shown = client.get(f"/jobs/{finished_job_id}").json()["emissions_basis"]["pue"]

    assert min(pues) <= shown <= max(pues)
    if expected is not None:
        assert shown == expected
    assert str(shown) in client.get(f"/jobs/{finished_job_id}").text


def test_the_running_time_of_a_page_changes_with_its_etag(
    client: TestClient, job_id: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from tests.api.conftest import NOW

    with database.session() as session:
        session.get_one(Job, job_id).started_at = NOW - timedelta(seconds=90)
    app: Any = client.app
    clock = [NOW]
    object.__setattr__(app.state.context, "clock", lambda: clock[0])
    bodies: dict[str, set[str]] = {}
    for seconds in (0, 10, 29, 31, 95):
        clock[0] = NOW + timedelta(seconds=seconds)
        page = client.get(f"/dashboard/jobs/{job_id}")
        bodies.setdefault(page.headers["etag"], set()).add(page.text)

    assert len(bodies) == 3
    assert [len(each) for each in bodies.values()] == [1, 1, 1]
