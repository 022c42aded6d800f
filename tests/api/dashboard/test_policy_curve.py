"""`/dashboard/policies/curve`: its present point is the decision that a job of the zone would get now."""

import pytest
from fastapi.testclient import TestClient

from greencore.carbon.static import yearly_mean
from runtime.settings import Settings

RUN = {
    "policy": {"kind": "linear", "clean": 0, "dirty": 1000, "rho_max": 1.0, "rho_min": 0.5},
    "work_hours": 4,
    "epochs": 2,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"zones": {"FR": "static", "GB": "uk"}})


def test_without_stored_readings_the_present_point_is_the_yearly_mean_of_the_sources_basis(
    client: TestClient,
) -> None:
    curves = [
        client.post("/dashboard/policies/curve", json={**RUN, "zone": zone}).raise_for_status().json()
        for zone in ("FR", "GB")
    ]
    assert curves[0]["now"]["gco2e_per_kwh"] == yearly_mean("FR")
    assert curves[0]["now"]["rho"] == pytest.approx(1 - yearly_mean("FR") / 2000)
    # Direct emissions, which no yearly mean has.
    assert curves[1]["now"] is None
