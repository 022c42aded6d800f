"""Choices of the new-job form: datasets, policies and zones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from api.access.principal import Principal
from api.dashboard.grid_zone import country_name
from api.dashboard.policies.policy_summary import describe_gate, describe_rho, describe_rule
from api.zones.endpoints import find_intensity
from api.zones.schemas import IntensityOut, ZoneOut
from greencore.policy import parse_stored_policy
from runtime.settings import Settings
from store.intensity.readings import GridRepository
from store.repositories.datasets import DatasetRepository
from store.repositories.policies import PolicyRepository
from store.tables import Dataset

DATASETS_SHOWN = 200
MAX_POLICIES = 500
# Choices besides the names of stored policies, which are not empty and have no braces.
DEFAULT_CHOICE, INLINE_CHOICE = "", "{}"


@dataclass(frozen=True)
class PolicyOption:
    """A stored policy, and its description."""

    name: str
    version: int
    description: str


@dataclass(frozen=True)
class ZoneOption:
    """A zone with the intensity in force, None where it is unknown."""

    zone: str
    country: str | None
    workers: int
    now: IntensityOut | None


def describe_policy(body: object) -> str:
    """Describe a policy in one line."""
    assert isinstance(body, dict)
    policy = parse_stored_policy(body)
    return f"ρ {describe_rho(policy)}: {describe_rule(policy)}; {describe_gate(policy.gate)}"


def policy_options(session: Session) -> list[PolicyOption]:
    """Return the newest version of each policy, by name."""
    stored = PolicyRepository(session).page(limit=MAX_POLICIES).data
    return [PolicyOption(policy.name, policy.version, describe_policy(policy.body)) for policy in stored]


def dataset_options(session: Session, principal: Principal, *, wanted: str | None) -> tuple[Sequence[Dataset], bool]:
    """Return the newest datasets that the principal sees, plus the wanted one, and whether there are more."""
    repository = DatasetRepository(session)
    page = repository.page(limit=DATASETS_SHOWN, owner=principal.owner_filter)
    shown = list(page.data)
    if wanted is not None and all(dataset.id != wanted for dataset in shown):
        found = repository.get(wanted)
        if found is not None and principal.can_read(found.owner):
            shown.append(found)
    return shown, page.has_more


def zone_options(session: Session, settings: Settings, known: Sequence[ZoneOut], *, now: datetime) -> list[ZoneOption]:
    """Return the configured zones, each with the intensity that would decide a job's ρ now."""
    grid = GridRepository(session)
    options = []
    for zone in known:
        if zone.zone not in settings.zones:  # a job can request configured zones only
            continue
        basis = grid.newest_basis(zone.zone) or settings.basis(zone.zone)
        intensity = find_intensity(grid, settings, zone.zone, basis, now=now)
        options.append(ZoneOption(zone.zone, country_name(settings, zone.zone), zone.workers, intensity))
    return options
