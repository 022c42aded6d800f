"""What was measured of the catalogue's models."""

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.tables import Model


class ModelRepository:
    """Queries on measured models, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, name: str) -> Model | None:
        return self._session.get(Model, name)

    def put(self, name: str, *, parameters: int, tensors: int, rho_floor: float, at: datetime) -> None:
        """Store a measurement; the lowest floor seen over all batch shapes is the one that is kept."""
        row = insert(Model).values(
            name=name, parameters=parameters, tensors=tensors, rho_floor=rho_floor, measured_at=at
        )
        self._session.execute(
            row.on_conflict_do_update(
                index_elements=["name"],
                set_={
                    "parameters": parameters,
                    "tensors": tensors,
                    "rho_floor": func.least(Model.rho_floor, row.excluded.rho_floor),
                    "measured_at": at,
                },
            )
        )
