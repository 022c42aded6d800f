"""The catalogue's models on the wire."""

from pydantic import BaseModel, Field

from runtime.catalogue import CatalogueEntry
from store.tables import Model


class ModelOut(BaseModel):
    """A model that jobs may name; what was measured of it is null until its first job is prepared."""

    name: str
    licence: str
    description: str
    parameters: int | None = Field(description="Trainable parameters")
    tensors: int | None = Field(description="Trainable tensors")
    rho_floor: float | None = Field(description="Smallest ρ at which one tensor can be trained")
    max_length: int | None = Field(
        description="Most tokens of a row that the model has positions for; null also where they have no end"
    )

    @classmethod
    def of(cls, entry: CatalogueEntry, measured: Model | None) -> "ModelOut":
        """A catalogue entry with what is known of it."""
        return cls(
            name=entry.name,
            licence=entry.licence,
            description=entry.description,
            parameters=measured and measured.parameters,
            tensors=measured and measured.tensors,
            rho_floor=measured and measured.rho_floor,
            max_length=measured and measured.max_length,
        )
