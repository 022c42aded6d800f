"""Filter of the jobs page: read from the URL, and written into links."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from api.http.problems import FieldProblem
from api.jobs.endpoints import METADATA_FILTER
from api.jobs.request import LONGEST_METADATA
from store.lifecycle.status import JobStatus

# Name of the form's field for one more `key=value`, which is sent unchanged without scripts.
LABEL_FIELD = "metadata"
# Parameters of the filter that are texts, in the order in which links have them.
TEXTS = ("zone", "name", "model", "owner")


@dataclass(frozen=True)
class JobsFilter:
    """Jobs to show: those that match every field given and are older than the job `after`."""

    status: JobStatus | None = None
    zone: str | None = None
    name: str | None = None
    model: str | None = None
    owner: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    after: str | None = None

    @property
    def is_active(self) -> bool:
        return bool(self.status or self.texts or self.labels)

    @property
    def texts(self) -> dict[str, str]:
        """Conditions on texts, by parameter."""
        return {name: value for name in TEXTS if (value := getattr(self, name)) is not None}

    @property
    def link(self) -> str:
        """The page's URL with this filter."""
        given = [
            *([("status", self.status.value)] if self.status else []),
            *self.texts.items(),
            *((f"metadata[{key}]", value) for key, value in self.labels.items()),
            *([("after", self.after)] if self.after else []),
        ]
        return f"/?{urlencode(given)}" if given else "/"

    def without(self, text: str) -> "JobsFilter":
        """Return the filter without the condition on a text."""
        cleared: dict[str, Any] = {text: None}
        return replace(self, **cleared)

    def older_link(self, job_id: str) -> str:
        return replace(self, after=job_id).link

    @property
    def newest_link(self) -> str:
        """Link to the first page."""
        return replace(self, after=None).link

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """Conditions in words, each with the link that removes it."""
        first = replace(self, after=None)
        others = {key: {name: self.labels[name] for name in self.labels if name != key} for key in self.labels}
        return [
            *([(f"status {self.status.value}", replace(first, status=None).link)] if self.status else []),
            *((f"{name} {text}", first.without(name).link) for name, text in self.texts.items()),
            *((f"{key}={value}", replace(first, labels=others[key]).link) for key, value in self.labels.items()),
        ]


def read_filter(parameters: Iterable[tuple[str, str]]) -> tuple[JobsFilter, list[FieldProblem], bool]:
    """Return the filter in a query string, the errors in it, and whether it differs from the filter's link.

    Empty values and unknown names are ignored.
    """
    given: dict[str, str] = {}
    labels: dict[str, str] = {}
    errors: list[FieldProblem] = []
    needs_redirect = False
    for name, value in parameters:
        match = METADATA_FILTER.fullmatch(name)
        if "\0" in name + value:
            errors.append(FieldProblem(field=name.split("\0")[0], message="the character NUL is not allowed"))
        elif len(value) > LONGEST_METADATA:
            errors.append(FieldProblem(field=name, message=f"expected at most {LONGEST_METADATA} characters"))
        elif match:
            labels[match[1]] = value
        elif name in ("status", *TEXTS, "after", LABEL_FIELD):
            needs_redirect = needs_redirect or name == LABEL_FIELD or not value.strip()
            if value.strip():
                given[name] = value
    if label := given.get(LABEL_FIELD, "").strip():
        key, separator, wanted = label.partition("=")
        if key and separator:
            labels[key.strip()] = wanted.strip()
        else:
            errors.append(FieldProblem(field=LABEL_FIELD, message=f"given {label!r}: expected key=value"))
    known = {known.value: known for known in JobStatus}
    status = given.get("status")
    if status is not None and status not in known:
        errors.append(FieldProblem(field="status", message=f"there is no {status!r}: expected {', '.join(known)}"))
    texts = {name: given.get(name) for name in TEXTS}
    shown = JobsFilter(known.get(status or ""), **texts, labels=labels, after=given.get("after"))
    return shown, errors, needs_redirect
