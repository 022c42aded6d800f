"""Datasets on the wire."""

from datetime import datetime

from pydantic import BaseModel

from store.tables import Dataset


class DatasetOut(BaseModel):
    """An uploaded file of training rows."""

    id: str
    name: str
    format: str
    rows: int
    bytes: int
    sha256: str
    created_at: datetime

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetOut":
        """As stored."""
        return cls(
            id=dataset.id,
            name=dataset.name,
            format=dataset.format,
            rows=dataset.rows,
            bytes=dataset.bytes,
            sha256=dataset.sha256,
            created_at=dataset.created_at,
        )
