"""The REST calls that the demonstration needs, with problems turned into errors."""

from pathlib import Path
from typing import Any

import httpx

from cli.errors import CommandError

Json = dict[str, Any]


class RequestRefused(CommandError):
    """The service answered with a problem; the text holds its detail and each field at fault."""


class Client:
    """Talks to the API at `url` with a key. Methods raise `CommandError` where they do not get what they ask for."""

    def __init__(self, url: str, *, key: str = "") -> None:
        # Loopback: a proxy that the environment may name has no part in it.
        headers = {"Authorization": f"Bearer {key}"} if key else None
        self._http = httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload_dataset(self, file: Path) -> Json:
        with file.open("rb") as rows:
            return self._call("POST", "/datasets", files={"file": (file.name, rows)})

    def submit_job(self, job: Json) -> Json:
        return self._call("POST", "/jobs", json=job)

    def job(self, job_id: str) -> Json:
        return self._call("GET", f"/jobs/{job_id}")

    def epochs(self, job_id: str) -> list[Json]:
        return self._list(f"/jobs/{job_id}/epochs")

    def artifacts(self, job_id: str) -> list[Json]:
        return self._list(f"/jobs/{job_id}/artifacts")

    def _list(self, path: str) -> list[Json]:
        data: list[Json] = self._call("GET", path)["data"]
        return data

    def _call(self, method: str, path: str, **content: Any) -> Json:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.HTTPError as error:
            raise CommandError(
                f"{method} {path}: the service does not answer: {error or type(error).__name__}"
            ) from error
        if answer.is_error:
            raise RequestRefused(f"{method} {path}: {_problem(answer)}")
        body: Json = answer.json()
        return body


def _problem(answer: httpx.Response) -> str:
    """What an RFC 9457 answer says, or its status where it is none."""
    try:
        problem = answer.json()
        fields = [f"{error.get('field')}: {error.get('message')}" for error in problem.get("errors") or []]
        return "; ".join([str(problem.get("detail") or problem["title"]), *fields])
    except (ValueError, KeyError, AttributeError):
        return f"{answer.status_code} {answer.reason_phrase}"
