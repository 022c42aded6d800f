"""Measurements of the catalogue's models."""

from datetime import datetime

from sqlalchemy import func, literal, update
from sqlalchemy.dialects.postgresql import JSONB, array, insert

from store.database import Repository
from store.tables import Json, Model


class ModelRepository(Repository):
    """Queries on measured models."""

    def get(self, name: str) -> Model | None:
        return self._session.get(Model, name)

    def put(
        self,
        name: str,
        *,
        parameters: int,
        tensors: int,
        rho_floor: float,
        at: datetime,
        max_length: int | None = None,
        costs: Json | None = None,
        names: Json | None = None,
    ) -> None:
        """Store a measurement; the lowest `rho_floor` is kept, and known costs and names where none are given."""
        measured = {
            "parameters": parameters,
            "tensors": tensors,
            "rho_floor": rho_floor,
            "max_length": max_length,
            "costs": costs,
            "names": names,
            "measured_at": at,
        }
        row = insert(Model).values(name=name, **measured)
        kept = {
            "rho_floor": func.least(Model.rho_floor, row.excluded.rho_floor),
            "costs": func.coalesce(row.excluded.costs, Model.costs),
            "names": func.coalesce(row.excluded.names, Model.names),
        }
        self._session.execute(row.on_conflict_do_update(index_elements=["name"], set_=measured | kept))

    def put_method_share(self, name: str, method: str, share: float) -> None:
        """Store a method's measured share of full fine-tuning's FLOPs; does nothing without costs."""
        costs = func.jsonb_set(Model.costs, array(["methods", method]), literal(share, JSONB))
        self._session.execute(update(Model).where(Model.name == name, Model.costs.is_not(None)).values(costs=costs))
