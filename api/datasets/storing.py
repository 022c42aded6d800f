"""Puts a dataset's rows in their place, and takes them away: one file for equal content, whoever uploaded it."""

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
    """Add a dataset whose rows are in `file`, which moves into its place.

    The file comes first and the row after it, so that no dataset is ever without its rows; where the row cannot be
    written, the file goes again.
    """
    target = settings.dataset_file(dataset.blob)
    _sync(file)
    try:
        with database.session() as session:
            datasets = DatasetRepository(session)
            datasets.lock_blob(dataset.blob)
            # Over an equal file where there is one: its readers keep what they have opened, and damage is mended.
            file.replace(target)
            _sync(target.parent)
            datasets.add(dataset)
    except BaseException:
        with suppress(SQLAlchemyError):
            discard_rows(database, settings, dataset.blob)
        raise


def discard_rows(database: Database, settings: Settings, blob: str) -> None:
    """Remove a file of rows unless some dataset still consists of it."""
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
