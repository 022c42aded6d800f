"""Which tensors a job may train and at what cost, and which of them each epoch chose."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.lifecycle.leases import Lease, lock_leased_job
from store.repositories.pagination import Page
from store.tables import Epoch, Tensor


class TensorCostLike(Protocol):
    """A tensor, and the FLOPs of its gradients in one step, as `greencore.backprop.TensorCost` has them."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> int: ...
    @property
    def t_dw(self) -> int: ...
    @property
    def t_dy(self) -> int: ...


def put_tensors(session: Session, lease: Lease, costs: Sequence[TensorCostLike]) -> None:
    """Keep what a job's tensors cost, from output to input; later attempts find the same. Raises `LeaseLost`."""
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


class SelectionRepository:
    """Reads selections, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def tensors(self, job_id: str) -> Sequence[Tensor]:
        """From output to input; empty until training has begun, and of jobs from before costs were kept."""
        return self._session.scalars(select(Tensor).where(Tensor.job_id == job_id).order_by(Tensor.position)).all()

    def epochs(self, job_id: str, *, limit: int, after: int | None = None) -> Page[Epoch]:
        """Epochs whose selection is known, newest first, those with a smaller number than `after`."""
        query = select(Epoch).where(Epoch.job_id == job_id, Epoch.selection.is_not(None))
        if after is not None:
            query = query.where(Epoch.number < after)
        return Page.from_rows(self._session.scalars(query.order_by(Epoch.number.desc()).limit(limit + 1)).all(), limit)
