"""Prometheus and Grafana: what alerts and panels ask for is what /metrics gives, and each finds what it is given."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as parse

from api.health.readiness import NEEDED_BY_EVERY_JOB
from api.main import create_app
from api.metrics.families import build_metric_families
from api.metrics.requests import RequestMetrics
from api.metrics.service_figures import (
    JobCount,
    NewestIntensity,
    OpenJobs,
    ProcessCount,
    ServiceMetrics,
)
from greencore.clock import utc_now
from runtime.settings import Settings
from store.lifecycle.status import JobStatus
from store.tables import EnergyTotal, IdleEnergy, Provider
from tests.deployment.compose import read_yaml, services
from tests.keys import bearer, new_key

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = read_yaml(DEPLOY / "prometheus" / "alerts.yml")
CONFIGURATION = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "greentune.json").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Prometheus' own, of each target.
OF_THE_SCRAPE = {"job", "instance"}


def every_sample() -> dict[str, set[str]]:
    """Each name that /metrics can give, with its labels: of a service that has all there is to tell of."""
    now = utc_now()
    provider = Provider(zone="FR", failures=1, consecutive_failures=1, last_success_at=now)
    figures = ServiceMetrics(
        at=now,
        counts=[JobCount("FR", JobStatus.RUNNING, 1, 1.0)],
        open_jobs=[OpenJobs("FR", JobStatus.RUNNING, 1.0, 0.5, 30.0, 2)],
        intensities=[NewestIntensity("FR", "average", "static", 50.0, 60.0)],
        energy=[EnergyTotal(zone="FR", component="cpu", kwh=1.0)],
        idle_energy=[IdleEnergy(zone="FR", component="cpu", kwh=1.0)],
        providers=[provider],
        processes=[ProcessCount("FR", "train", 1, 0, 1.0, 4)],
        unpriced_kwh={"FR": 1.0},
    )
    requests = RequestMetrics(CollectorRegistry())
    requests.record_response("GET", "/jobs", 200, seconds=0.1)
    samples: dict[str, set[str]] = {}
    for family in [*build_metric_families(figures, zones=["FR"], lease_seconds=60.0), *requests.registry.collect()]:
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return samples


def expressions() -> Iterator[tuple[str, str]]:
    """Each query to Prometheus, with its place."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def labels_in(expression: str) -> set[str]:
    """The labels by which it selects and groups."""
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = [name for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(", ")]
    return {*selected, *grouped}


def test_what_is_known_here_is_what_the_service_tells(settings: Settings) -> None:
    with TestClient(create_app(settings), headers=bearer(new_key(settings))) as client:
        client.get("/jobs")
        scraped = {sample.name for family in parse(client.get("/metrics").text) for sample in family.samples}
    assert scraped <= set(every_sample())


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_metric_that_is_asked_for_exists_with_its_labels(place: str, expression: str) -> None:
    known = every_sample()
    named = set(re.findall(r"greentune_\w+", expression))
    assert named <= set(known), place
    assert named or "up{" in expression
    labels = OF_THE_SCRAPE.union(*(known[name] for name in named))
    assert labels_in(expression) <= labels, place


@pytest.mark.parametrize(
    "target",
    [target for panel in PANELS for target in panel["targets"]],
    ids=lambda target: str(target["legendFormat"]),
)
def test_a_legend_names_labels_that_are_left(target: dict[str, str]) -> None:
    named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    grouped = re.findall(r"^(?:sum|max|topk\(10, histogram_quantile\(0.95, sum) by \(([^)]*)\)", target["expr"])
    left = set(grouped[0].split(", ")) if grouped else OF_THE_SCRAPE
    assert named <= left, target["expr"]


def test_every_metric_is_asked_for_somewhere() -> None:
    asked = {name for _, expression in expressions() for name in re.findall(r"greentune_\w+", expression)}
    families_asked = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    known = {name for name in every_sample() if not name.endswith("_created")}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in known} == families_asked


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "action"}


@pytest.mark.parametrize(
    "metric", ["greentune_jobs", "greentune_workers", "greentune_energy_kwh_total", "greentune_emissions_gco2e"]
)
def test_what_every_api_process_tells_is_not_added_up(metric: str) -> None:
    """The same row of the database would count once for each process."""
    for place, expression in expressions():
        for found in re.finditer(rf"{metric}\b", expression):
            before = expression[: found.start()]
            assert re.search(r"max( by \([^)]*\))? \(?(\w+\()?$|max\($", before), f"{place}: {before}"


@pytest.mark.fault(number=19)
def test_an_alert_tells_of_each_part_that_every_job_needs() -> None:
    asked = {rule["expr"] for rule in RULES}
    assert {"scheduler", "prepare_worker"} == NEEDED_BY_EVERY_JOB
    for role in ("scheduler", "prepare"):
        assert f'max(greentune_workers{{role="{role}"}}) == 0' in asked


@pytest.mark.fault(number=12)
def test_emissions_are_divided_by_energy_that_has_a_price() -> None:
    ratios = [expression for _, expression in expressions() if re.search(r"greentune_emissions_gco2e.* / ", expression)]
    assert ratios
    for expression in ratios:
        divisor = expression.partition(" / ")[2]
        assert re.search(r"greentune_energy_kwh_total.* - .*greentune_unpriced_energy_kwh.* > 0\)$", divisor)


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_grafana_asks_the_source_that_it_is_given() -> None:
    sources = read_yaml(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    providers = read_yaml(DEPLOY / "grafana/provisioning/dashboards/greentune.yml")["providers"]
    grafana, prometheus = services()["grafana"], services()["prometheus"]
    assert [source["uid"] for source in sources] == ["prometheus"]
    assert sources[0]["url"] == f"http://prometheus:{prometheus['ports'][0].rsplit(':', 1)[1]}"
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"prometheus"}
    mounted = {volume.split(":")[1] for volume in grafana["volumes"]}
    assert providers[0]["options"]["path"] in mounted
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) in mounted
    assert (DEPLOY / "grafana" / "dashboards" / home.name).is_file()


def test_prometheus_reads_its_key_from_a_file_that_git_and_images_leave_out() -> None:
    [job] = CONFIGURATION["scrape_configs"]
    file = Path(job["authorization"]["credentials_file"])
    assert "./deploy/prometheus:/etc/prometheus:ro" in services()["prometheus"]["volumes"]
    assert str(file.parent) == "/etc/prometheus"
    assert f"/{file.name}" in (DEPLOY / "prometheus" / ".gitignore").read_text().splitlines()
    assert "credentials" not in job["authorization"]
    [names] = job["dns_sd_configs"]
    assert names["names"] == ["api"]
    assert services()["api"]["ports"][0].endswith(f":{names['port']}")


def test_prometheus_takes_configuration_and_rules(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("there is no promtool here; on Debian and Ubuntu: apt install prometheus")
    here = (DEPLOY / "prometheus" / "prometheus.yml").read_text().replace("/etc/prometheus", str(tmp_path))
    (tmp_path / "prometheus.yml").write_text(here)
    (tmp_path / "greentune.key").write_text("gtk_")
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", tmp_path)
    done = subprocess.run([promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
