"""Retries of the client after faults of the connection: only of safe calls, and bounded."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.stack.embedded import LOOPBACK
from greencore.host_network import find_free_port
from greentune.client import Client
from greentune.errors import Problem, UnexpectedAnswer, Unreachable
from greentune.models import Dataset, Job
from runtime.settings import Settings
from store.database import Database
from store.tables import Artifact
from tests.api.conftest import MODEL, run_to_success
from tests.client.faulty_proxy import Proxy, drop_connection, lose_answer, proxy, refuse, truncate_answer

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def way(url: str) -> Iterator[Proxy]:
    with proxy(int(url.rsplit(":", 1)[1])) as way:
        yield way


@pytest.fixture
def client(way: Proxy, operator_key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr("greentune.transport.INITIAL_BACKOFF_SECONDS", 0.02)
    with Client(way.url, operator_key, timeout=5, attempts=3) as client:
        yield client


@pytest.fixture
def job(client: Client, dataset: Dataset) -> Job:
    return client.submit(MODEL, dataset.id)


@pytest.mark.parametrize(
    "fault", [drop_connection, lose_answer, refuse(503, retry_after="0"), refuse(429, retry_after="0")]
)
def test_a_read_is_retried(client: Client, way: Proxy, fault: object) -> None:
    way.faults.extend([fault, fault])  # type: ignore[list-item]
    assert client.models()
    assert len(way.requests) == 3


def test_attempts_are_bounded(client: Client, way: Proxy) -> None:
    way.faults.extend([drop_connection] * 9)
    with pytest.raises(Unreachable, match=r"GET /models: the service at http://127\.0\.0\.1:\d+ does not answer"):
        client.models()
    assert len(way.requests) == 3


def test_a_submission_whose_answer_is_lost_is_one_job(client: Client, way: Proxy, dataset: Dataset) -> None:
    way.faults.append(lose_answer)
    job = client.submit(MODEL, dataset.id)
    assert [each.id for each in client.jobs()] == [job.id]


@pytest.mark.parametrize("fault", [drop_connection, refuse(503, retry_after="0")])
def test_an_action_is_not_retried(client: Client, way: Proxy, job: Job, fault: object) -> None:
    sent = len(way.requests)
    way.faults.append(fault)  # type: ignore[arg-type]
    with pytest.raises((Unreachable, Problem)):
        client.cancel(job.id)
    assert len(way.requests) == sent + 1


def test_an_action_refused_with_429_is_retried(client: Client, way: Proxy, job: Job) -> None:
    way.faults.append(refuse(429, retry_after="0"))
    assert client.cancel(job.id).status == "cancelled"


def test_a_deletion_whose_answer_is_lost_succeeds(client: Client, way: Proxy, dataset: Dataset) -> None:
    way.faults.append(lose_answer)
    client.delete_dataset(dataset.id)
    assert list(client.datasets()) == []


@pytest.mark.parametrize("fault", [refuse(503), refuse(503, retry_after="3600"), refuse(500, retry_after="0")])
def test_a_permanent_error_is_raised_at_once(client: Client, way: Proxy, fault: object) -> None:
    way.faults.append(fault)  # type: ignore[arg-type]
    with pytest.raises(Problem, match="GET /models: 50"):
        client.models()
    assert len(way.requests) == 1


def test_a_download_that_breaks_off_is_resumed(
    client: Client, way: Proxy, job: Job, database: Database, settings: Settings, tmp_path: Path
) -> None:
    run_to_success(database, settings, job.id)
    settings.artifact_file(job.id, "model.safetensors").write_bytes(WEIGHTS)
    with database.session() as session:
        artifact = session.get_one(Artifact, (job.id, "model.safetensors"))
        artifact.sha256, artifact.bytes = hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS)
    client.artifacts(job.id)
    way.faults.extend([lambda request: request.pass_on(), truncate_answer(4000), truncate_answer(3000)])

    assert client.download(job.id, "model.safetensors", tmp_path).read_bytes() == WEIGHTS
    ranges = [line for head in way.requests for line in head if line.lower().startswith("range: ")]
    assert [line.split(": ")[1] for line in ranges] == ["bytes=4000-", "bytes=7000-"]


def test_each_event_is_streamed_once_despite_faults(
    client: Client, way: Proxy, job: Job, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greentune.following.RETRY_SECONDS", 0.05)
    run_to_success(database, settings, job.id)
    way.faults.extend([drop_connection, refuse(503), truncate_answer(400)])

    events = list(client.events(job.id, follow=True))
    assert [event.id for event in events] == [event.id for event in client.events(job.id)][::-1]
    assert events[-1].type == "job.succeeded"
    assert list(client.events(job.id, follow=True, after=events[-1].id)) == []


def test_polling_outlasts_an_absence_of_the_service(
    client: Client, way: Proxy, job: Job, url: str, operator_key: str
) -> None:
    changes = client.changes(job.id, seconds=0.02)
    assert next(changes).status == "validating"
    way.faults.extend([*[drop_connection] * 6, *[refuse(502)] * 3])
    with Client(url, operator_key) as direct:
        direct.cancel(job.id)
    assert next(changes).status == "cancelled"
    assert not way.faults


def test_an_unreachable_service_is_named() -> None:
    url = f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}"
    with Client(url, attempts=1) as client, pytest.raises(Unreachable, match=url):
        client.models()


def test_another_server_at_the_url_is_recognised(client: Client, way: Proxy) -> None:
    def page(request: object) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")  # type: ignore[attr-defined]

    way.faults.append(page)
    with pytest.raises(UnexpectedAnswer, match="expected JSON, not text/html"):
        client.models()
