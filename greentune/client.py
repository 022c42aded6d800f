"""The client of the service: a method for each call, with typed answers and errors."""

import json
import os
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

from greentune.downloads import download
from greentune.errors import Problem
from greentune.following import JobPoller, follow_events, wait_for_counts
from greentune.models import (
    Artifact,
    Dataset,
    Epoch,
    Estimate,
    Evaluation,
    Event,
    Forecast,
    Health,
    History,
    Intensity,
    IssuedKey,
    Job,
    JobStatus,
    Key,
    LearnedText,
    Model,
    Policy,
    Row,
    Selection,
    Series,
    Simulation,
    Worker,
    Zone,
)
from greentune.requests import PolicyChoice, RunOptions, to_json_value, without_nones
from greentune.transport import Page, Transport, resource_path

DEFAULT_URL = "http://127.0.0.1:8000"
UPLOAD_CHUNK_BYTES = 1 << 20
# An upload is answered after all of its rows are checked.
CHECKING_SECONDS = 600.0


class Client:
    """Client of the service at `url`, authenticated with `key`.

    Their defaults are GREENTUNE_URL and GREENTUNE_KEY, else port 8000 of this machine without a key. `timeout` in
    seconds bounds each wait for bytes of an answer. A call is sent at most `attempts` times; only safe calls are
    retried: reads, and submissions, which carry an `Idempotency-Key`.

    Every method raises `greentune.errors.Problem` on a refusal, and `Unreachable` without an answer.
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
        self._polls = JobPoller(self._transport)

    @property
    def url(self) -> str:
        """URL of the service."""
        return self._transport.url

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def submit(
        self, model: str, dataset: str, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]
    ) -> Job:
        """Submit a run of `model` on the rows of the dataset with the id `dataset`.

        `model` is a name of `models()`, or the id of a finished job, whose result is trained further.
        Retries of the request create one job only. Options that are not given have the service's defaults.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        body = without_nones({"model": model, "dataset": dataset, **options})
        return self._transport.send(Job, "POST", "/jobs", json=body, headers=headers, repeatable=True)

    def estimate(self, model: str, dataset: str, **options: Unpack[RunOptions]) -> Estimate:
        """Estimate time, energy and emissions of a run, started now or in the best window; nothing is queued."""
        body = without_nones({"model": model, "dataset": dataset, **options})
        return self._transport.send(Estimate, "POST", "/jobs/estimate", json=body, repeatable=True)

    def job(self, job_id: str) -> Job:
        """Return a job; one that has not changed since the last call is not sent again."""
        return self._polls.job(job_id)

    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        zone: str | None = None,
        name: str | None = None,
        model: str | None = None,
        owner: str | None = None,
        metadata: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> Iterator[Job]:
        """Iterate over the jobs that match all filters, newest first, at most `most`; pages are requested as needed.

        Only operators see jobs of another `owner`.
        """
        labels = {f"metadata[{name}]": value for name, value in (metadata or {}).items()}
        filters = {"status": status, "zone": zone, "name": name, "model": model, "owner": owner, **labels}
        return self._transport.pages("/jobs", Page[Job], filters, most=most)

    def changes(self, job_id: str, *, seconds: float = 2.0, timeout: float | None = None) -> Iterator[Job]:
        """Poll a job every `seconds`, and yield it now and after each change until it is over.

        Raises `StillRunning` where it is not over within `timeout` seconds.
        """
        return self._polls.changes(job_id, seconds=seconds, timeout=timeout)

    def wait(self, job_id: str, *, seconds: float = 2.0, timeout: float | None = None) -> Job:
        """Wait until a job is over and return it, whatever its final status; polls and raises as `changes`."""
        return deque(self.changes(job_id, seconds=seconds, timeout=timeout), maxlen=1).pop()

    def cancel(self, job_id: str) -> Job:
        """Request the cancellation of a job."""
        return self._request_action(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        """Request a job to stop at its next optimiser step, and to keep its progress."""
        return self._request_action(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        """Resume a paused job."""
        return self._request_action(job_id, "resume")

    def retry(self, job_id: str) -> Job:
        """Retry a failed or cancelled job."""
        return self._request_action(job_id, "retry")

    def epochs(self, job_id: str, *, after: int = 0) -> Iterator[Epoch]:
        """Iterate over the epochs of a job after the number `after`, in order."""
        return self._transport.pages(
            resource_path("jobs", job_id, "epochs"), Page[Epoch], {"after": after}, cursor="number"
        )

    def series(
        self, job_id: str, *, points: int | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> Series:
        """Return the curves of a job with about `points` at most each; a shorter time has finer steps."""
        params = {"points": points, "start": start, "end": end}
        return self._transport.get(Series, resource_path("jobs", job_id, "series"), params)

    def evaluations(self, job_id: str, *, after: int = 0) -> Iterator[Evaluation]:
        """Iterate over the evaluations of a job during training after the step `after`, in order."""
        return self._transport.pages(
            resource_path("jobs", job_id, "evaluations"), Page[Evaluation], {"after": after}, cursor="step"
        )

    def selection(self, job_id: str, *, limit: int | None = None, after: int | None = None) -> Selection:
        """Return the tensors that each epoch trained, of the newest `limit` epochs, or of those before `after`."""
        return self._transport.get(
            Selection, resource_path("jobs", job_id, "selection"), {"limit": limit, "after": after}
        )

    def events(
        self, job_id: str, *, follow: bool = False, after: int | None = None, most: int | None = None
    ) -> Iterator[Event]:
        """Iterate over the events of a job older than the event `after`, newest first, at most `most`.

        With `follow`, over those newer than `after`, earliest first, as a stream that ends with the job.
        """
        if follow:
            return islice(follow_events(self._transport, job_id, after=after), most)
        return self._transport.pages(resource_path("jobs", job_id, "events"), Page[Event], {"after": after}, most=most)

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Return the files of a finished job's result."""
        return self._transport.get(Page[Artifact], resource_path("jobs", job_id, "artifacts")).data

    def download(self, job_id: str, name: str, path: str | Path) -> Path:
        """Download an artifact to the file `path`, or into the folder `path`, and return the file.

        The file appears only when it is complete. Raises `ChecksumMismatch` where its SHA-256 differs.
        """
        for artifact in self.artifacts(job_id):
            if artifact.name == name:
                return download(self._transport, job_id, artifact, Path(path))
        raise Problem(404, "Not Found", f"{job_id} has no artifact {name!r}")

    def upload_dataset(
        self, path: str | Path, *, name: str | None = None, columns: Mapping[str, str] | None = None
    ) -> Dataset:
        """Upload rows, streamed from a file of JSON Lines, a JSON array, CSV, TSV or Parquet, compressed or not.

        The dataset has `name`, else the file's name. `columns` are the fields of a row, and the columns or paths in the
        file that they are taken from: `{"prompt": "question", "completion": "data.answer"}`.
        """
        path = Path(path)

        def content() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(UPLOAD_CHUNK_BYTES):
                    yield chunk

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        params = {"name": name or path.name, "columns": json.dumps(dict(columns)) if columns else None}
        return self._transport.send(
            Dataset, "POST", "/datasets", params=params, content=content, headers=headers, read_seconds=CHECKING_SECONDS
        )

    def datasets(self) -> Iterator[Dataset]:
        """Iterate over all datasets, newest first."""
        return self._transport.pages("/datasets", Page[Dataset])

    def dataset(self, dataset_id: str) -> Dataset:
        """Return a dataset, without its rows."""
        return self._transport.get(Dataset, resource_path("datasets", dataset_id))

    def dataset_rows(self, dataset_id: str, *, most: int = 10) -> list[Row]:
        """Return the first rows of a dataset, at most `most` (100 or fewer), with long texts truncated."""
        return self._transport.get(Page[Row], resource_path("datasets", dataset_id, "preview"), {"limit": most}).data

    def learned_text(
        self,
        dataset_id: str,
        model: str,
        *,
        prompt_format: str | None = None,
        train_on: str | None = None,
        timeout: float | None = None,
    ) -> LearnedText:
        """Return the first twenty rows of a dataset as `model` reads them, with the learned tokens marked.

        `prompt_format` and `train_on` are as in a job's hyperparameters. The first call has a prepare worker tokenise
        the dataset, and waits for it. Raises `StillCounting` where that takes more than `timeout` seconds.
        """
        params = {"model": model, "prompt_format": prompt_format, "train_on": train_on}
        path = resource_path("datasets", dataset_id, "learned")
        return wait_for_counts(self._transport, LearnedText, path, params, timeout=timeout)

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset that no open job uses."""
        self._transport.call("DELETE", resource_path("datasets", dataset_id), repeatable=True)

    def models(self) -> list[Model]:
        """Return the models that can be trained: the operator's catalogue."""
        return self._transport.get(Page[Model], "/models").data

    def policies(self) -> list[Policy]:
        """Return the newest version of every stored policy, by name."""
        return list(self._transport.pages("/policies", Page[Policy], cursor="name"))

    def policy(self, name: str) -> Policy:
        """Return the newest version of a stored policy."""
        return self._transport.get(Policy, resource_path("policies", name))

    def put_policy(self, name: str, policy: Mapping[str, Any], *, if_version: int | None = None) -> Policy:
        """Store the next version of a policy (operators).

        With `if_version`, only if that is still the newest version (0: if there is none), else it raises a `Problem` of
        status 412.
        """
        headers = None
        if if_version is not None:
            headers = {"If-Match": f'"{if_version}"'} if if_version else {"If-None-Match": "*"}
        body = {"policy": dict(policy)}
        return self._transport.send(Policy, "PUT", resource_path("policies", name), json=body, headers=headers)

    def delete_policy(self, name: str) -> None:
        """Delete every version of a policy (operators)."""
        self._transport.call("DELETE", resource_path("policies", name), repeatable=True)

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
        """Simulate a policy on the stored readings of `zone`, or on the readings of `series`.

        `options` are the other fields of `POST /policies/simulate`, such as `deadline_hours`, `start`, `forecast`,
        `power_w` and `idle_power_w`.
        """
        body = {"policy": policy, "work_hours": work_hours, "epochs": epochs, "zone": zone, "series": series, **options}
        return self._transport.send(Simulation, "POST", "/policies/simulate", json=without_nones(body), repeatable=True)

    def zones(self) -> list[Zone]:
        """Return every zone with its newest reading and its forecast."""
        return self._transport.get(Page[Zone], "/zones").data

    def intensity(self, zone: str) -> Intensity:
        """Return the current intensity of a zone in gCO2e/kWh, and its source."""
        return self._transport.get(Intensity, resource_path("zones", zone, "intensity"))

    def forecast(self, zone: str, *, hours: float = 24) -> Forecast:
        """Return the forecast of a zone for the next `hours`, in gCO2e/kWh."""
        return self._transport.get(Forecast, resource_path("zones", zone, "forecast"), {"hours": hours})

    def history(self, zone: str, *, start: datetime | None = None, end: datetime | None = None) -> History:
        """Return the stored readings of a zone, earliest first; by default of the last day."""
        params = {"start": start, "end": end}
        return self._transport.get(History, resource_path("zones", zone, "history"), params)

    def workers(self) -> list[Worker]:
        """Return the workers and the scheduler, with the time each was last seen."""
        return self._transport.get(Page[Worker], "/workers").data

    def keys(self) -> Iterator[Key]:
        """Iterate over all keys without their text, newest first (operators)."""
        return self._transport.pages("/keys", Page[Key])

    def create_key(
        self, owner: str, *, role: str = "user", name: str = "", expires_at: datetime | None = None
    ) -> IssuedKey:
        """Create a key (operators); only this answer contains its text."""
        body = {"owner": owner, "role": role, "name": name, "expires_at": to_json_value(expires_at)}
        return self._transport.send(IssuedKey, "POST", "/keys", json=body)

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key permanently (operators)."""
        self._transport.call("DELETE", resource_path("keys", key_id), repeatable=True)

    def readiness(self) -> Health:
        """Return the warnings of a ready service; raises a `Problem` with the missing parts of one that is not."""
        return self._transport.send(Health, "GET", "/readyz")

    def _request_action(self, job_id: str, action: str) -> Job:
        return self._transport.send(Job, "POST", resource_path("jobs", job_id, action))
