"""The audit log of requests that changed data or were refused."""

from sqlalchemy import select

from store.database import Repository
from store.repositories.pagination import Page, load_newest
from store.tables import AuditEntry


class AuditRepository(Repository):
    """Queries on the audit log."""

    def add(self, entry: AuditEntry) -> None:
        self._session.add(entry)

    def page(self, *, limit: int, after: int | None = None, owner: str | None = None) -> Page[AuditEntry]:
        """Return entries newest first, those older than the id `after`; of all owners without `owner`."""
        query = select(AuditEntry)
        if owner is not None:
            query = query.where(AuditEntry.owner == owner)
        return load_newest(self._session, query, AuditEntry.id, limit=limit, after=after)
