"""Stores and removes the rows of datasets: one file for equal content, shared by all its owners."""

import os
from contextlib import suppress
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from runtime.settings import Settings
from store.database import Database
from store.repositories.datasets import DatasetRepository
from store.tables import Dataset

log = structlog.get_logger()


def store_dataset(database: Database, settings: Settings, dataset: Dataset, file: Path) -> None:
    """Add a dataset whose rows are in `file`, which is moved into place.

    The file is stored before the database row, so that no dataset is ever without its rows; if the row cannot be
    written, the file is removed.
    """
    target = settings.dataset_file(dataset.blob)
    _sync(file)
    try:
        with database.session() as session:
            datasets = DatasetRepository(session)
            datasets.lock_blob(dataset.blob)
            # Replaces an equal file if there is one: its readers keep the one they opened, and damage is repaired.
            file.replace(target)
            _sync(target.parent)
            datasets.add(dataset)
    except BaseException:
        with suppress(SQLAlchemyError):
            discard_rows(database, settings, dataset.blob)
        raise


def discard_rows(database: Database, settings: Settings, blob: str) -> None:
    """Remove a file of rows unless a dataset still refers to it."""
    with database.session() as session:
        datasets = DatasetRepository(session)
        datasets.lock_blob(blob)
        if not datasets.is_blob_referenced(blob):
            settings.dataset_file(blob).unlink(missing_ok=True)
            log.info("dataset.rows_removed", blob=blob)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
