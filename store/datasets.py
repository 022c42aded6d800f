"""The dataset aggregate."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.page import Page
from store.tables import Dataset


class DatasetRepository:
    """Queries on datasets, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, dataset: Dataset) -> None:
        self._session.add(dataset)
        self._session.flush()

    def get(self, dataset_id: str) -> Dataset | None:
        return self._session.get(Dataset, dataset_id)

    def page(self, *, limit: int, after: str | None = None, owner: str | None = None) -> Page[Dataset]:
        """Datasets newest first, those older than the id `after`; without an owner, those of all."""
        query = select(Dataset).order_by(Dataset.id.desc()).limit(limit + 1)
        if owner is not None:
            query = query.where(Dataset.owner == owner)
        if after is not None:
            query = query.where(Dataset.id < after)
        return Page.cut(self._session.scalars(query).all(), limit)
