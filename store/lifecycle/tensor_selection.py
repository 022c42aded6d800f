"""Tensors that a job may train with their costs, and the selection of each epoch."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.database import Repository
from store.lifecycle.leases import Lease, lock_leased_job
from store.repositories.pagination import Page, load_newest
from store.tables import Epoch, Tensor


class TensorCostLike(Protocol):
    """A tensor and the FLOPs of its gradients in one step; satisfied by `greencore.backprop.TensorCost`."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> int: ...
    @property
    def t_dw(self) -> int: ...
    @property
    def t_dy(self) -> int: ...


def put_tensors(session: Session, lease: Lease, costs: Sequence[TensorCostLike]) -> None:
    """Store the costs of a job's tensors, from output to input, unless an attempt has already. Raises `LeaseLost`."""
    lock_leased_job(session, lease)
    rows = [
        {
            "job_id": lease.job_id,
            "position": position,
            "name": cost.name,
            "parameters": cost.params,
            "t_dw_flops": cost.t_dw,
            "t_dy_flops": cost.t_dy,
        }
        for position, cost in enumerate(costs)
    ]
    if rows:
        session.execute(insert(Tensor).on_conflict_do_nothing(), rows)


class SelectionRepository(Repository):
    """Queries on tensors and selections."""

    def tensors(self, job_id: str) -> Sequence[Tensor]:
        """Return a job's tensors from output to input; empty until training starts, and for jobs of old versions."""
        return self._session.scalars(select(Tensor).where(Tensor.job_id == job_id).order_by(Tensor.position)).all()

    def epochs(self, job_id: str, *, limit: int, after: int | None = None) -> Page[Epoch]:
        """Return epochs with a selection, newest first, those with a number below `after`."""
        query = select(Epoch).where(Epoch.job_id == job_id, Epoch.selection.is_not(None))
        return load_newest(self._session, query, Epoch.number, limit=limit, after=after)
