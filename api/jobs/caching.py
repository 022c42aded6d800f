"""ETags of jobs and job lists: a poll of an unchanged one is answered 304, after one small query."""

import hashlib
import json
from collections.abc import Iterable

from api.jobs.schemas import JobOut

# A job's revision counts its changes; another release may represent the same job differently.
_SCHEMA = json.dumps(JobOut.model_json_schema(mode="serialization"), sort_keys=True)
JOB_SCHEMA_FINGERPRINT = hashlib.sha256(_SCHEMA.encode()).hexdigest()[:8]


def job_etag(revision: int) -> str:
    """Return the strong ETag of a job at a revision."""
    return f'"{JOB_SCHEMA_FINGERPRINT}-{revision}"'


def job_list_etag(revisions: Iterable[tuple[str, int]], *, has_more: bool) -> str:
    """Return the strong ETag of a page of jobs, from their ids and revisions."""
    text = json.dumps([JOB_SCHEMA_FINGERPRINT, has_more, *revisions])
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
