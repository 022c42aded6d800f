"""What stands behind the service: its models, its workers, its keys, and whether it is ready."""

from datetime import datetime
from typing import Literal

from greentune.models.answer import Answer


class Model(Answer):
    """A model that jobs may name; what was measured of it is None until its first job is prepared."""

    name: str
    licence: str
    description: str
    parameters: int | None
    """Trainable parameters"""
    tensors: int | None
    """Trainable tensors"""
    rho_floor: float | None
    """Smallest ρ at which one tensor can be trained"""
    max_length: int | None
    """Most tokens of a row that the model has positions for; null also where they have no end"""


class Worker(Answer):
    """One process. Of `job`, the job that it holds, only those who see that job are told."""

    id: str
    role: Literal["train", "prepare", "scheduler"]
    zone: str | None
    """The zone of a training worker's site, "site-unknown" where that is not set; null for any other process"""
    pue: float | None
    """kWh drawn by its site for each kWh that a training worker uses"""
    site_idle_kwh: float | None
    """Energy that the hosts of the zone's training workers used so far while no job did, before PUE; it is in no job's
    energy; null for any other process"""
    zones: list[str]
    """The same zone as a list; deprecated"""
    device: str
    state: Literal["idle", "busy", "running", "lost"]
    """A training worker is idle or busy, any other process running; lost: silent for too long"""
    job: str | None
    started_at: datetime
    last_seen_at: datetime


class Key(Answer):
    """A key without its text; `hint` holds the first characters of it."""

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
    """A new key with its text, `key`, which is shown this once."""

    key: str


class Warned(Answer):
    """A part that is missing while requests can be answered, and what follows from that."""

    part: str
    message: str


class Health(Answer):
    """Requests can be answered; `warnings` name what keeps jobs from being done."""

    status: Literal["ok", "degraded"]
    warnings: list[Warned]
