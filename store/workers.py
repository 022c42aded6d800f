"""The training workers that are alive, and the zones in which they stand."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.tables import Worker


class WorkerRepository:
    """Queries on workers, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def seen(self, worker_id: str, *, zones: Sequence[str], device: str, at: datetime) -> None:
        """Note that a training worker is alive."""
        statement = insert(Worker).values(
            id=worker_id, zones=list(zones), device=device, started_at=at, last_seen_at=at
        )
        self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["id"], set_={"zones": list(zones), "device": device, "last_seen_at": at}
            )
        )

    def gone(self, worker_id: str) -> None:
        """Forget a worker that has stopped in order."""
        worker = self._session.get(Worker, worker_id)
        if worker is not None:
            self._session.delete(worker)

    def alive(self, *, since: datetime) -> Sequence[Worker]:
        """The workers that were seen after a time."""
        return self._session.scalars(select(Worker).where(Worker.last_seen_at >= since).order_by(Worker.id)).all()
