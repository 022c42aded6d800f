"""Models, datasets, workers, keys, and the readiness of the service."""

from datetime import datetime
from typing import Literal

from greentune.models.answer import Answer


class Model(Answer):
    """A model that jobs may use; measured values are None until its first job is prepared."""

    name: str
    licence: str
    description: str
    parameters: int | None
    """Number of trainable parameters"""
    tensors: int | None
    """Number of trainable tensors"""
    rho_floor: float | None
    """Smallest ρ at which one tensor can be trained"""
    max_length: int | None
    """Longest row in tokens; None also where the model has no limit"""


class Characters(Answer):
    """Number of characters in the texts of a row."""

    total: int
    mean: float
    median: int
    max: int


class Contents(Answer):
    """Contents of the rows of a dataset."""

    forms: dict[str, int]
    """Number of rows of each form: prompt, messages, text"""
    characters: Characters
    ignored_fields: list[str]
    """Fields or columns that no row uses, at most twenty"""


class Dataset(Answer):
    """An uploaded file of training rows."""

    id: str
    name: str
    format: str
    rows: int
    bytes: int
    sha256: str
    contents: Contents | None
    """None for a dataset from before this was counted"""
    created_at: datetime


class Worker(Answer):
    """One process; `job`, which it runs, is None for a caller who may not see that job."""

    id: str
    role: Literal["train", "prepare", "scheduler"]
    zone: str | None
    """Zone of a training worker's site, "site-unknown" where it is not set; None for other processes"""
    pue: float | None
    """kWh that the site draws for each kWh of a training worker"""
    site_idle_kwh: float | None
    """Idle energy of the hosts of the zone's training workers so far, before PUE, which is in no job's energy; None for
    other processes"""
    zones: list[str]
    """The zone as a list; deprecated"""
    device: str
    state: Literal["idle", "busy", "running", "lost"]
    """A training worker is idle or busy, other processes running; lost: without a heartbeat for too long"""
    job: str | None
    started_at: datetime
    last_seen_at: datetime


class Key(Answer):
    """A key without its text; `hint` is its first characters."""

    id: str
    owner: str
    role: Literal["user", "operator"]
    name: str
    hint: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class IssuedKey(Key):
    """A new key with its text, `key`, which is shown only once."""

    key: str


class Warned(Answer):
    """A missing part without which requests are still answered, and the consequence."""

    part: str
    message: str


class Health(Answer):
    """Readiness: requests are answered; `warnings` name what prevents jobs from running."""

    status: Literal["ok", "degraded"]
    warnings: list[Warned]
