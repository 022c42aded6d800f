"""Lineage of jobs: the jobs whose results a job trains further, and the results that open jobs need."""

from collections.abc import Collection

from sqlalchemy import select

from store.database import Repository, lock_row
from store.lifecycle.status import FINAL
from store.tables import Artifact, Job

MAX_LINEAGE = 16  # jobs in a chain, each of which trained the result of the one before
WHOLE_MODEL_FILE = "config.json"  # in a result that is a whole model; a delta and an adapter need their base


class ResultRemoved(ValueError):
    """The result of a job, from which another one starts, is no longer stored."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the result of {job_id} was removed: this service keeps results for a limited time")
        self.job_id = job_id


class LineageRepository(Repository):
    """Queries on the jobs behind a job."""

    def list_bases(self, job: Job) -> list[Job]:
        """Return the jobs behind a job: the one whose result it trains further, the one behind that, and so on."""
        bases: list[Job] = []
        while (base_id := (bases[-1] if bases else job).base_job_id) is not None:
            bases.append(self._session.get_one(Job, base_id))
        return bases

    def lock_for_use(self, job_id: str) -> Job | None:
        """Return the job, locked against removal of its result; for a transaction that submits or retries a job."""
        return lock_row(self._session, select(Job).where(Job.id == job_id), read=True)

    def lock_needed_results(self, job: Job) -> None:
        """Lock each result that is needed to build the model of a finished job, its own first.

        They reach back to the first that is a whole model. Raises `ResultRemoved`.
        """
        for needed in [job, *self.list_bases(job)]:
            locked = self.lock_for_use(needed.id)
            if locked is None or locked.files_removed_at is not None:
                raise ResultRemoved(needed.id)
            if self._session.get(Artifact, (needed.id, WHOLE_MODEL_FILE)) is not None:
                return

    def find_needed(self, job_ids: Collection[str]) -> set[str]:
        """Return which of these jobs have results that an open job may start from."""
        needed = (
            select(Job.base_job_id.label("id"))
            .where(Job.status.not_in(FINAL), Job.base_job_id.is_not(None))
            .cte("needed", recursive=True)
        )
        further = select(Job.base_job_id).join(needed, Job.id == needed.c.id).where(Job.base_job_id.is_not(None))
        needed = needed.union(further)
        query = select(needed.c.id).where(needed.c.id.in_(job_ids))
        return {job_id for job_id in self._session.scalars(query) if job_id is not None}
