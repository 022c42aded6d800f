"""Live processes, attempts that meter a host, and idle energy; energy in kWh, times of events in UTC."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.table import Json, Table


class Worker(Table):
    """A live process: `role` is train, prepare or scheduler.

    `memory_bytes` is the memory of its device: a GPU's, or the host's within its container's limit, and `computes_bf16`
    whether it computes natively in bfloat16; `gpus` is the number of such devices that it gives to jobs, processes on
    the processor where it has no GPU. The former two, `zone` and `pue` (kWh drawn by the site for each kWh that the
    machine uses) are None unless it is a training worker.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    zone: Mapped[str | None]
    pue: Mapped[float | None]
    device: Mapped[str]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    computes_bf16: Mapped[bool | None]
    gpus: Mapped[int] = mapped_column(default=1, server_default="1")
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]


class MeteredAttempt(Table):
    """One attempt of a job: how far its energy is stored, and when it shares the energy of its host.

    `claimed_at`, `seen_at` (the claim or the newest renewal of the lease) and `ended_at` are by the database's clock.
    At `seen_at` the energy of `unstored_seconds` seconds from `unstored_since` on (the worker's clock) was not stored;
    `pue` is that of the worker's site, `assumed_power_w` the operator's figure for its device.

    `host` identifies the machine since its boot, `gpus` holds the UUIDs of the attempt's GPUs, and `devices` is their
    number, or that of its processes without one, by which the host's energy is shared. `host_from`, `host_seen`
    and `host_until` are seconds of the host's monotonic clock: the attempt shares the host's processor and memory in
    [host_from, host_until), until `host_seen` where its worker died. `shared_out_kwh` was metered by this attempt and
    billed to others.
    """

    __tablename__ = "metered_attempts"
    __table_args__ = (Index("ix_metered_attempts_host_host_until", "host", "host_until"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    claimed_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    unstored_since: Mapped[datetime]
    unstored_seconds: Mapped[float] = mapped_column(default=0.0)
    pue: Mapped[float] = mapped_column(default=1.0)
    assumed_power_w: Mapped[float | None]
    host: Mapped[str | None]
    gpus: Mapped[list[str]] = mapped_column(default=list)
    devices: Mapped[int] = mapped_column(default=1, server_default="1")
    host_from: Mapped[float | None]
    host_seen: Mapped[float | None]
    host_until: Mapped[float | None]
    shared_out_kwh: Mapped[float] = mapped_column(default=0.0)


class MeteredHost(Table):
    """A host whose energy attempts share. Its row is locked for a join, a leave or an allocation.

    `idle` holds, for the host itself (empty name) and for each GPU by its UUID, the second of the host's monotonic
    clock `until` which its idle energy is stored, and its newest idle `power` in kWh per second, by component.
    """

    __tablename__ = "metered_hosts"

    id: Mapped[str] = mapped_column(primary_key=True)
    idle: Mapped[Json] = mapped_column(default=dict)


class IdleEnergy(Table):
    """Energy of hosts with a training worker that no job used, by zone and component (cpu, gpu, ram)."""

    __tablename__ = "idle_energy"

    zone: Mapped[str] = mapped_column(primary_key=True)
    component: Mapped[str] = mapped_column(primary_key=True)
    kwh: Mapped[float]
