"""Allocates the processor and memory energy of a host to the attempts that run on it at the same time.

Every attempt meters the whole host. While several run, each is billed in proportion to its devices: its GPUs, or its
processes where it has none, so that attempts of one process without a GPU share evenly. Times are seconds of the host's
monotonic clock, which all its processes share and which never jumps.

An attempt joins and leaves under a lock of the host, at the clock's time while it holds the lock. Shares are computed
under the same lock, so that a later join or leave cannot change an allocation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise

from sqlalchemy import or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from greencore.energy import EnergyInterval
from store.accounting.energy_totals import add_to_idle_energy
from store.database import database_now
from store.tables import Job, MeteredAttempt, MeteredHost

HOST = ""
"""Key of the host itself in `MeteredHost.idle`, beside the UUIDs of its GPUs."""


@dataclass(frozen=True)
class IdleSample:
    """Energy of a host from `start` to `end`, in seconds of its monotonic clock; of GPUs by their UUID."""

    start: float
    end: float
    cpu_kwh: float
    ram_kwh: float
    gpu_kwh: dict[str, float]

    @property
    def resources(self) -> dict[str, dict[str, float]]:
        """The energy of the host and of each GPU, by component."""
        host = {HOST: {"cpu": self.cpu_kwh, "ram": self.ram_kwh}}
        return host | {uuid: {"gpu": kwh} for uuid, kwh in self.gpu_kwh.items()}


def lock_host(session: Session, host: str) -> MeteredHost:
    """Lock a host, whose row is created if needed, for a join, a leave or an allocation."""
    session.execute(insert(MeteredHost).values(id=host, idle={}).on_conflict_do_nothing())
    return session.get_one(MeteredHost, host, with_for_update=True, populate_existing=True)


def leave_host(session: Session, attempt: MeteredAttempt, *, monotonic: Callable[[], float] | None = None) -> None:
    """Stop sharing the host with an attempt, from now on, or, without a clock (its worker died), from `host_seen`."""
    if attempt.host is None or attempt.host_until is not None:
        return
    lock_host(session, attempt.host)
    attempt.host_until = attempt.host_seen if monotonic is None else monotonic()


def lock_hosts(session: Session, jobs: Sequence[Job]) -> None:
    """Lock the hosts of running attempts of several locked jobs, before any write to energy totals.

    Prevents a deadlock: a transaction that holds a host's lock may wait for the totals.
    """
    query = select(MeteredAttempt.host).where(
        tuple_(MeteredAttempt.job_id, MeteredAttempt.attempt).in_([(job.id, job.attempts) for job in jobs]),
        MeteredAttempt.host.is_not(None),
    )
    for host in sorted({host for host in session.scalars(query) if host is not None}):
        lock_host(session, host)


def allocate_host_energy(session: Session, attempt: MeteredAttempt, interval: EnergyInterval) -> list[EnergyInterval]:
    """Split an attempt's interval wherever another attempt joins or leaves, each part with its share of the host.

    The parts are consecutive; GPU energy is not shared. An attempt that never joined a host is billed all of it;
    before joining and after leaving an attempt is billed nothing of the host.
    """
    if attempt.host is None or attempt.host_from is None or interval.monotonic_start is None:
        return [interval]
    lock_host(session, attempt.host)
    start = interval.monotonic_start
    end = start + (interval.end - interval.start).total_seconds()
    others = _running_attempts(session, attempt.host, start, end)
    if end <= start:
        return [_take_share(interval, attempt, others, at=start)]
    edges = {edge for other in others for edge in (other.host_from, other.host_until) if edge is not None}
    cuts = [start, *sorted(edge for edge in edges if start < edge < end), end]
    parts = []
    for begin, until in pairwise(cuts):
        first = interval.start if begin == start else interval.start + timedelta(seconds=begin - start)
        last = interval.end if until == end else interval.start + timedelta(seconds=until - start)
        parts.append(_take_share(interval.slice(first, last), attempt, others, at=(begin + until) / 2))
    return parts


def store_idle_energy(
    session: Session, host: str, zone: str, samples: Sequence[IdleSample], *, silent_seconds: float
) -> int:
    """Add the energy of `samples` (in time order) that no attempt used to the zone's idle energy.

    Returns the number of samples stored. Time sampled by several processes is counted once. A sample that ends after
    the last heartbeat of an attempt that has been silent for `silent_seconds` is left for later: whether that attempt
    runs is unknown. In a sample that jobs used in part, idle power is capped at that of the last wholly idle sample.
    """
    row = lock_host(session, host)
    if not samples:
        return 0
    attempts = _running_attempts(session, host, samples[0].start, samples[-1].end)
    known_until = _known_until(session, attempts, silent_seconds)
    used = [sample for sample in samples if sample.end <= known_until]
    idle = dict(row.idle)
    kwh: dict[str, float] = {}
    for sample in used:
        for resource, energy in sample.resources.items():
            known = idle.get(resource, {"until": sample.start})
            holders = [one for one in attempts if resource == HOST or resource in one.gpus]
            begin, seconds = max(sample.start, known["until"]), sample.end - sample.start
            empty = _empty_seconds(holders, begin, sample.end)
            whole = empty >= seconds * 0.999
            power = {part: kwh / seconds for part, kwh in energy.items()} if seconds > 0 else {}
            if not whole and "power" in known:
                power = {part: min(mean, known["power"].get(part, mean)) for part, mean in power.items()}
            for part, mean in power.items():
                kwh[part] = kwh.get(part, 0.0) + mean * empty
            idle[resource] = {**known, "until": max(known["until"], sample.end), **({"power": power} if whole else {})}
    row.idle = idle
    if any(kwh.values()):
        add_to_idle_energy(session, zone, kwh)
    return len(used)


def _running_attempts(session: Session, host: str, start: float, end: float) -> Sequence[MeteredAttempt]:
    """Return the attempts that share the host at any time from `start` to `end`."""
    session.flush()
    query = (
        select(MeteredAttempt)
        .where(
            MeteredAttempt.host == host,
            MeteredAttempt.host_from <= end,
            or_(MeteredAttempt.host_until.is_(None), MeteredAttempt.host_until > start),
        )
        .execution_options(populate_existing=True)
    )
    return session.scalars(query).all()


def _take_share(
    part: EnergyInterval, attempt: MeteredAttempt, others: Sequence[MeteredAttempt], *, at: float
) -> EnergyInterval:
    there = [other for other in others if other.host_from is not None and _shares(other, at)]
    weights = {(other.job_id, other.attempt): other.devices for other in there}
    own = weights.get((attempt.job_id, attempt.attempt), 0)
    share = own / sum(weights.values()) if own else 0.0
    return replace(part, cpu_kwh=part.cpu_kwh * share, ram_kwh=part.ram_kwh * share)


def _shares(attempt: MeteredAttempt, at: float) -> bool:
    assert attempt.host_from is not None
    return attempt.host_from <= at and (attempt.host_until is None or at < attempt.host_until)


def _known_until(session: Session, attempts: Sequence[MeteredAttempt], silent_seconds: float) -> float:
    now = database_now(session)
    silent = [
        attempt.host_seen
        for attempt in attempts
        if attempt.host_until is None
        and attempt.host_seen is not None
        and (now - attempt.seen_at).total_seconds() > silent_seconds
    ]
    return min(silent, default=float("inf"))


def _empty_seconds(attempts: Sequence[MeteredAttempt], start: float, end: float) -> float:
    """Return the seconds between two times in which no attempt ran."""
    empty, reached = 0.0, start
    for attempt in sorted(attempts, key=lambda one: one.host_from or 0.0):
        assert attempt.host_from is not None
        empty += max(0.0, min(attempt.host_from, end) - reached)
        reached = max(reached, end if attempt.host_until is None else attempt.host_until)
    return empty + max(0.0, end - reached)
