"""The dashboard's pages as they are served: no other hosts, everything escaped, estimates marked."""

import re

import pytest
from fastapi.testclient import TestClient

from store.database import Database
from store.tables import Epoch, Job

POLLS = '<body data-poll-seconds="3">'
# Without scripts a browser reloads the page instead.
REFRESH = '<noscript><meta http-equiv="refresh" content="3"></noscript>'
OWN_SCRIPT = re.compile(r'<script( type="module"| defer| src="/static/[\w./-]+")+></script>')


def page(client: TestClient, path: str) -> str:
    """Return a page's markup, which may load nothing from other hosts and run only the service's scripts."""
    response = client.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    without_ours = OWN_SCRIPT.sub("", response.text)
    assert not re.search(r"<script|<style| style=| on\w+=|(src|href)=.?(https?:)?//", without_ours)
    return response.text


def test_the_jobs_page_without_jobs_leads_to_the_form(client: TestClient) -> None:
    assert "No jobs yet" in page(client, "/")


def test_the_jobs_page_lists_jobs_and_polls_while_one_is_not_final(job_id: str, client: TestClient) -> None:
    markup = page(client, "/")

    assert f'href="/dashboard/jobs/{job_id}"' in markup
    assert "validating" in markup
    assert POLLS in markup
    assert REFRESH in markup


def test_the_page_of_a_job_that_is_over_does_not_poll(finished_job_id: str, client: TestClient) -> None:
    markup = page(client, f"/dashboard/jobs/{finished_job_id}")
    assert "data-poll-seconds" not in markup
    assert "refresh" not in markup


def test_the_jobs_page_polls_less_often_where_all_jobs_are_over(finished_job_id: str, client: TestClient) -> None:
    assert 'data-poll-seconds="20"' in page(client, "/")


def test_the_page_of_an_unfinished_job_polls(job_id: str, client: TestClient) -> None:
    assert POLLS in page(client, f"/dashboard/jobs/{job_id}")


def test_a_finished_job_shows_its_epochs_its_files_and_its_history(finished_job_id: str, client: TestClient) -> None:
    markup = page(client, f"/dashboard/jobs/{finished_job_id}")

    for shown in ("212", "0.58", "2 of 3", "1.25", "0.0006", "0.1526", "gCO2e/kWh (trace (synthetic)", "job.running"):
        assert shown in markup
    assert f'href="/jobs/{finished_job_id}/artifacts/model.safetensors"' in markup


def test_estimates_and_synthetic_sources_are_marked_as_such(finished_job_id: str, client: TestClient) -> None:
    for path in ("/", f"/dashboard/jobs/{finished_job_id}"):
        assert "an estimate, not a measurement" in page(client, path)
    assert '<span class="source">trace (synthetic)</span>' in page(client, f"/dashboard/jobs/{finished_job_id}")


def test_a_waiting_job_shows_when_its_gate_is_expected_to_open(deferred_job_id: str, client: TestClient) -> None:
    for path in ("/", f"/dashboard/jobs/{deferred_job_id}"):
        markup = page(client, path)
        assert "gate closed, expected to open 2026-11-23 1" in markup
        assert "deferred" in markup
    assert "by the policy's max_delay_hours" in markup


def test_emissions_are_shown_as_provisional_until_they_are_settled(finished_job_id: str, client: TestClient) -> None:
    for path in ("/", f"/dashboard/jobs/{finished_job_id}"):
        assert ">provisional<" in page(client, path)
        assert ">settled<" not in page(client, path)


def test_settled_emissions_and_both_savings_are_shown_with_their_assumptions(
    settled_job_id: str, client: TestClient
) -> None:
    assert 'data-label="Saved by less work, est.">42.0 %' in page(client, "/")
    for path in ("/", f"/dashboard/jobs/{settled_job_id}"):
        assert ">settled<" in page(client, path)
        assert ">provisional<" not in page(client, path)
    markup = page(client, f"/dashboard/jobs/{settled_job_id}")
    for shown in ("By less work", "By moving it in time", "every tensor trained (ρ = 1)", "all known beforehand"):
        assert shown in markup


def test_emissions_of_estimated_energy_are_marked_though_the_intensity_was_measured(
    settled_job_id: str, client: TestClient
) -> None:
    markup = page(client, f"/dashboard/jobs/{settled_job_id}")

    emissions = markup[markup.index("<dt>Emissions</dt>") : markup.index("<dt>Running</dt>")]
    assert "an estimate, not a measurement" in emissions


def test_codecarbons_total_and_the_sites_pue_are_shown(finished_job_id: str, client: TestClient) -> None:
    markup = page(client, f"/dashboard/jobs/{finished_job_id}")

    assert "CodeCarbon's own total: 0.00062 kWh (ours differs by −3.2 %)" in markup
    assert "at 1.2 kWh drawn by the site" in markup


def test_an_intensity_other_than_a_fresh_reading_names_its_fallback_step(
    finished_job_id: str, client: TestClient, database: Database
) -> None:
    assert 'class="step"' not in page(client, f"/dashboard/jobs/{finished_job_id}")
    with database.session() as session:
        session.get_one(Epoch, (finished_job_id, 1)).intensity_step = "yesterday"

    assert '<span class="step">yesterday</span>' in page(client, f"/dashboard/jobs/{finished_job_id}")


def test_a_models_output_is_escaped(finished_job_id: str, client: TestClient) -> None:
    markup = page(client, f"/dashboard/jobs/{finished_job_id}")

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in markup
    assert "Say &lt;b&gt;hi&lt;/b&gt;" in markup


def test_a_program_with_an_invalid_filter_gets_problem_json(client: TestClient) -> None:
    answer = client.get("/?status=resting")

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"] == "status"


def test_the_page_of_an_unknown_job_is_not_found(client: TestClient) -> None:
    assert client.get("/dashboard/jobs/job_0").status_code == 404


@pytest.mark.parametrize("file", ["greentune.css", "leaf.svg", "js/live.js", "uplot/uPlot.iife.js"])
def test_assets_are_served_compressed_and_revalidated(client: TestClient, file: str) -> None:
    answer = client.get(f"/static/{file}")

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers.get("content-encoding") == (None if file == "leaf.svg" else "gzip")
    again = client.get(f"/static/{file}", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("path", ["/", "/dashboard/jobs/{}"])
def test_a_poll_of_an_unchanged_page_is_a_304(
    finished_job_id: str, client: TestClient, database: Database, path: str
) -> None:
    first = client.get(path.format(finished_job_id))
    known = {"If-None-Match": first.headers["etag"]}
    assert client.get(path.format(finished_job_id), headers=known).status_code == 304

    with database.session() as session:
        session.get_one(Job, finished_job_id).reason = "a new reason"

    again = client.get(path.format(finished_job_id), headers=known)
    assert again.status_code == 200
    assert "a new reason" in again.text


def test_a_pages_etag_is_valid_for_one_user_only(alice: TestClient, bob: TestClient) -> None:
    tag = alice.get("/").headers["etag"]

    assert bob.get("/", headers={"If-None-Match": tag}).status_code == 200


def test_the_reference_shows_every_operation(client: TestClient) -> None:
    markup = page(client, "/docs")

    for path in client.get("/openapi.json").json()["paths"]:
        assert path in markup
    assert "/openapi.json" in markup
    assert "Authorization: Bearer gtk_…" in markup
    assert markup.count("<code>401</code>") == 1, "shared responses are listed once"
    assert markup.count("Needs no key.") >= 2
    for text in ("application/problem+json", "Content-Range", "Retry-After", "text/event-stream"):
        assert text in markup
