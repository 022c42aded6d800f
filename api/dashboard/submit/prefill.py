"""Initial values of the new-job form where it copies a job."""

import json
from typing import Any

from sqlalchemy.orm import Session

from api.dashboard.submit.choices import DEFAULT_CHOICE, INLINE_CHOICE
from api.jobs.request import DEFAULT_POLICY
from greencore.policy import parse_stored_policy
from store.repositories.policies import PolicyRepository
from store.tables import Job

Prefill = dict[str, Any]


def prefill(job: Job, session: Session) -> Prefill:
    """Return the form's values by name, and the metadata as pairs; without the deadline, which has mostly passed."""
    choice, inline = _policy(job, session)
    values = {
        "model": job.model,
        "dataset": job.dataset_id,
        "method": job.method,
        "policy": choice,
        "policy-json": inline,
        "zone": job.zone_asked or "",
        "priority": str(job.priority),
        **{f"hyperparameters.{name}": _text(value) for name, value in job.hyperparameters.items()},
    }
    return {"values": values, "metadata": [[key, value] for key, value in job.labels.items()]}


def _policy(job: Job, session: Session) -> tuple[str, str]:
    """Return the choice of the job's policy: its name, if its newest version is the same, else its body."""
    if job.policy_name is not None:
        stored = PolicyRepository(session).latest(job.policy_name)
        if stored is not None and parse_stored_policy(stored.body) == parse_stored_policy(job.policy):
            return job.policy_name, ""
    elif parse_stored_policy(job.policy) == parse_stored_policy(DEFAULT_POLICY):
        return DEFAULT_CHOICE, ""
    return INLINE_CHOICE, json.dumps(job.policy, indent=2, ensure_ascii=False)


def _text(value: object) -> str:
    return "" if value is None else str(value)
