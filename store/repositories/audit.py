"""The audit log of requests that changed data or were refused."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.repositories.pagination import Page, load_newest
from store.tables import AuditEntry


@dataclass(frozen=True)
class AuditRecord:
    """One request: `action` is its method and path pattern, `target` its path."""

    at: datetime
    key_id: str | None
    owner: str | None
    role: str | None
    action: str
    target: str
    status: int
    request_id: str
    address: str | None


class AuditRepository:
    """Queries on the audit log, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, record: AuditRecord) -> None:
        self._session.add(AuditEntry(**asdict(record)))

    def page(self, *, limit: int, after: int | None = None, owner: str | None = None) -> Page[AuditEntry]:
        """Return entries newest first, those older than the id `after`; of all owners without `owner`."""
        query = select(AuditEntry)
        if owner is not None:
            query = query.where(AuditEntry.owner == owner)
        return load_newest(self._session, query, AuditEntry.id, limit=limit, after=after)
