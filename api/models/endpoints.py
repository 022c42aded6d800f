"""`/models`: the operator's catalogue; only its models can be trained."""

from fastapi import APIRouter
from pydantic import Field

from api.access.principal import PrincipalDep
from api.dependencies import AppContextDep, SessionDep
from api.http.pagination import Listing, complete_listing
from api.row_model import RowModel
from runtime.catalogue import CatalogueEntry
from store.repositories.models import ModelRepository
from store.tables import Model

router = APIRouter(prefix="/models", tags=["models"])


class ModelOut(RowModel):
    """A model that jobs may name; measured fields are null until its first job is prepared."""

    name: str
    licence: str
    description: str
    parameters: int | None = Field(description="Trainable parameters")
    tensors: int | None = Field(description="Trainable tensors")
    rho_floor: float | None = Field(description="Lowest ρ at which one tensor can be trained")
    max_length: int | None = Field(
        description="Maximum tokens of a row that the model has positions for; null also if they are unlimited"
    )

    @classmethod
    def of(cls, entry: CatalogueEntry, measured: Model | None) -> "ModelOut":
        """Build from a catalogue entry and what was measured of it."""
        figures = ("parameters", "tensors", "rho_floor", "max_length")
        return cls.from_row(entry, **{name: getattr(measured, name, None) for name in figures})


@router.get("", summary="List the models that jobs may name")
def list_models(principal: PrincipalDep, context: AppContextDep, session: SessionDep) -> Listing[ModelOut]:
    """The whole catalogue, in its order."""
    models = ModelRepository(session)
    return complete_listing([ModelOut.of(entry, models.get(entry.name)) for entry in context.catalogue.values()])
