"""The client: every call of the service as a method, with typed answers and errors that say what to do."""

import os
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from greentune.downloads import download
from greentune.errors import Problem
from greentune.following import JobPoller, follow_events
from greentune.models import (
    Artifact,
    Dataset,
    Epoch,
    Estimate,
    Event,
    Forecast,
    Health,
    History,
    Intensity,
    IssuedKey,
    Job,
    JobStatus,
    Key,
    Model,
    Policy,
    Selection,
    Series,
    Simulation,
    Worker,
    Zone,
)
from greentune.requests import PolicyChoice, RunOptions, job_request, to_json_value
from greentune.resources import Resources, parse_answer, quote_path_segment
from greentune.transport import Transport

DEFAULT_URL = "http://127.0.0.1:8000"
UPLOAD_CHUNK_BYTES = 1 << 20
# The answer to an upload comes when all of its rows are checked.
CHECKING_SECONDS = 600.0


class Client:
    """Talks to the service at `url` with a key.

    Where they are not given, GREENTUNE_URL and GREENTUNE_KEY are taken; else port 8000 of this machine, without a key.
    `timeout` is in seconds, for each silence while an answer is waited for. A call is sent at most `attempts` times,
    and again only where that does no harm: reads, and submissions, which carry an `Idempotency-Key`.

    Every method raises `greentune.errors.Problem` where the service refuses, and `Unreachable` where none answers.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, timeout: float = 60.0, attempts: int = 4
    ) -> None:
        self._transport = Transport(
            url or os.environ.get("GREENTUNE_URL") or DEFAULT_URL,
            (key or os.environ.get("GREENTUNE_KEY") or "").strip(),
            timeout_seconds=timeout,
            attempts=attempts,
        )
        self._resources = Resources(self._transport)
        self._polls = JobPoller(self._transport)

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._transport.url

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def submit(
        self, model: str, dataset: str, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]
    ) -> Job:
        """Submit a run of `model` on the rows of the dataset with the id `dataset`.

        It is submitted once, however often the request has to be sent. What is left out has the service's default.
        """
        once = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        body = job_request(model, dataset, options)
        return parse_answer(Job, self._transport.call("POST", "/jobs", json=body, headers=once, repeatable=True))

    def estimate(self, model: str, dataset: str, **options: Unpack[RunOptions]) -> Estimate:
        """What such a run would take and emit, begun now or in the best window; nothing is queued."""
        body = job_request(model, dataset, options)
        return parse_answer(Estimate, self._transport.call("POST", "/jobs/estimate", json=body, repeatable=True))

    def job(self, job_id: str) -> Job:
        """One job; asked for again and not changed since, it is not sent again."""
        return self._polls.job(quote_path_segment(job_id))

    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> Iterator[Job]:
        """The jobs that all filters hold of, newest first, the first `most` of them; pages are asked for as needed."""
        labels = {f"metadata[{name}]": value for name, value in (metadata or {}).items()}
        filters = {"status": status, "zone": zone, **labels}
        return self._resources.pages("/jobs", Job, lambda job: job.id, filters, most=most)

    def changes(self, job_id: str, *, seconds: float = 2.0, timeout: float | None = None) -> Iterator[Job]:
        """The job now and each time that it has changed, until it is over; looks every so many `seconds`.

        Raises `StillRunning` where it is not over within `timeout` seconds.
        """
        return self._polls.changes(quote_path_segment(job_id), seconds=seconds, timeout=timeout)

    def wait(self, job_id: str, *, seconds: float = 2.0, timeout: float | None = None) -> Job:
        """The job as it ended, whether well or not; as `changes` otherwise."""
        return deque(self.changes(job_id, seconds=seconds, timeout=timeout), maxlen=1).pop()

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job."""
        return self._request_action(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        """Ask a job to stop at its next optimiser step, and to keep what it has done."""
        return self._request_action(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on."""
        return self._request_action(job_id, "resume")

    def retry(self, job_id: str) -> Job:
        """Try a job again that has failed or was cancelled."""
        return self._request_action(job_id, "retry")

    def epochs(self, job_id: str, *, after: int = 0) -> Iterator[Epoch]:
        """What each epoch did, why, and at what cost, in order; those after the number `after`."""
        return self._resources.pages(
            f"/jobs/{quote_path_segment(job_id)}/epochs", Epoch, lambda epoch: epoch.number, {"after": after}
        )

    def series(
        self,
        job_id: str,
        *,
        points: int | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Series:
        """The curves of a job, each with about so many `points` at most; of a part of the time, in finer steps."""
        asked = {"points": points, "start": to_json_value(start), "end": to_json_value(end)}
        return self._resources.get(Series, f"/jobs/{quote_path_segment(job_id)}/series", asked)

    def selection(self, job_id: str, *, limit: int | None = None, after: int | None = None) -> Selection:
        """Which tensors were trained in which epoch; the newest `limit` epochs, or those before the number `after`."""
        return self._resources.get(
            Selection, f"/jobs/{quote_path_segment(job_id)}/selection", {"limit": limit, "after": after}
        )

    def events(
        self, job_id: str, *, follow: bool = False, after: int | None = None, most: int | None = None
    ) -> Iterator[Event]:
        """What happened to a job, newest first: the first `most`, and those older than the event `after`.

        With `follow` the earliest first, those newer than `after`, as a stream that ends with the job.
        """
        if follow:
            return islice(follow_events(self._transport, quote_path_segment(job_id), after=after), most)
        path = f"/jobs/{quote_path_segment(job_id)}/events"
        return self._resources.pages(path, Event, lambda event: event.id, {"after": after}, most=most)

    def artifacts(self, job_id: str) -> list[Artifact]:
        """The files of a finished job's result."""
        return self._resources.all(f"/jobs/{quote_path_segment(job_id)}/artifacts", Artifact)

    def download(self, job_id: str, name: str, path: str | Path) -> Path:
        """Write an artifact to the file `path`, or into it where it is a folder. Returns the file.

        It is there when it is whole and its SHA-256 is right. Raises `ChecksumMismatch` where that is not so.
        """
        for artifact in self.artifacts(job_id):
            if artifact.name == name:
                return download(self._transport, quote_path_segment(job_id), artifact, Path(path))
        raise Problem(404, "Not Found", f"{job_id} has no artifact {name!r}")

    def upload_dataset(self, path: str | Path, *, name: str | None = None) -> Dataset:
        """Upload rows as JSON Lines or Parquet, streamed from the file; `name` is shown, else the file's own."""
        path = Path(path)

        def content() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(UPLOAD_CHUNK_BYTES):
                    yield chunk

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        params = {"name": name or path.name}
        response = self._transport.call(
            "POST", "/datasets", params=params, content=content, headers=headers, read_seconds=CHECKING_SECONDS
        )
        return parse_answer(Dataset, response)

    def datasets(self) -> Iterator[Dataset]:
        """Every dataset, newest first."""
        return self._resources.pages("/datasets", Dataset, lambda dataset: dataset.id)

    def dataset(self, dataset_id: str) -> Dataset:
        """One dataset, without its rows."""
        return self._resources.get(Dataset, f"/datasets/{quote_path_segment(dataset_id)}")

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset that no open job needs."""
        self._resources.delete(f"/datasets/{quote_path_segment(dataset_id)}")

    def models(self) -> list[Model]:
        """The operator's catalogue: what can be trained."""
        return self._resources.all("/models", Model)

    def policies(self) -> list[Policy]:
        """The newest version of every stored policy, by name."""
        return list(self._resources.pages("/policies", Policy, lambda policy: policy.name))

    def policy(self, name: str) -> Policy:
        """The newest version of a stored policy."""
        return self._resources.get(Policy, f"/policies/{quote_path_segment(name)}")

    def put_policy(self, name: str, policy: Mapping[str, Any], *, if_version: int | None = None) -> Policy:
        """Store the next version of a policy (operators).

        With `if_version` only where that is the newest version still, or for 0 where there is none yet: else it raises
        a `Problem` of status 412, and nothing is stored.
        """
        headers = None
        if if_version is not None:
            headers = {"If-Match": f'"{if_version}"'} if if_version else {"If-None-Match": "*"}
        body = {"policy": dict(policy)}
        return parse_answer(
            Policy, self._transport.call("PUT", f"/policies/{quote_path_segment(name)}", json=body, headers=headers)
        )

    def delete_policy(self, name: str) -> None:
        """Delete every version of a policy (operators)."""
        self._resources.delete(f"/policies/{quote_path_segment(name)}")

    def simulate(
        self,
        policy: PolicyChoice,
        *,
        work_hours: float,
        epochs: int,
        zone: str | None = None,
        series: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Simulation:
        """What a policy would have emitted on the stored readings of `zone`, or on the readings of `series`.

        `options` are the other fields of `POST /policies/simulate`, such as `deadline_hours`, `start`, `forecast`,
        `power_w` and `idle_power_w`.
        """
        body = {"policy": policy, "work_hours": work_hours, "epochs": epochs, "zone": zone, "series": series, **options}
        body = {name: to_json_value(value) for name, value in body.items() if value is not None}
        return parse_answer(Simulation, self._transport.call("POST", "/policies/simulate", json=body, repeatable=True))

    def zones(self) -> list[Zone]:
        """Every zone, and what is known of it."""
        return self._resources.all("/zones", Zone)

    def intensity(self, zone: str) -> Intensity:
        """The intensity in force in a zone, in gCO2e/kWh, and how it was found."""
        return self._resources.get(Intensity, f"/zones/{quote_path_segment(zone)}/intensity")

    def forecast(self, zone: str, *, hours: float = 24) -> Forecast:
        """What is expected of a zone for so many hours, in gCO2e/kWh."""
        return self._resources.get(Forecast, f"/zones/{quote_path_segment(zone)}/forecast", {"hours": hours})

    def history(self, zone: str, *, start: datetime | None = None, end: datetime | None = None) -> History:
        """Stored readings of a zone, earliest first; of the last day where no time is given."""
        times = {"start": to_json_value(start), "end": to_json_value(end)}
        return self._resources.get(History, f"/zones/{quote_path_segment(zone)}/history", times)

    def workers(self) -> list[Worker]:
        """Every process of the service that has work, and when it was last seen."""
        return self._resources.all("/workers", Worker)

    def keys(self) -> Iterator[Key]:
        """Every key without its text, newest first (operators)."""
        return self._resources.pages("/keys", Key, lambda key: key.id)

    def create_key(
        self, owner: str, *, role: str = "user", name: str = "", expires_at: datetime | None = None
    ) -> IssuedKey:
        """Make a key (operators); its text is in this answer alone."""
        body = {"owner": owner, "role": role, "name": name, "expires_at": to_json_value(expires_at)}
        return parse_answer(IssuedKey, self._transport.call("POST", "/keys", json=body))

    def revoke_key(self, key_id: str) -> None:
        """Take a key out of use for good (operators)."""
        self._resources.delete(f"/keys/{quote_path_segment(key_id)}")

    def readiness(self) -> Health:
        """What the service lacks to do all of its work. Raises the `Problem` that names what it cannot do without."""
        return parse_answer(Health, self._transport.call("GET", "/readyz"))

    def _request_action(self, job_id: str, action: str) -> Job:
        return parse_answer(Job, self._transport.call("POST", f"/jobs/{quote_path_segment(job_id)}/{action}"))
