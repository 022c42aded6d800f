"""Uploaded training rows."""

from datetime import datetime

from greentune.models.answer import Answer


class Characters(Answer):
    """How many characters a row holds, all its texts together."""

    total: int
    mean: float
    median: int
    max: int


class Contents(Answer):
    """What the rows are."""

    forms: dict[str, int]
    """rows of each form: prompt, messages, text"""
    characters: Characters
    ignored_fields: list[str]
    """fields or columns that no row is made of; at most twenty are named"""


class Dataset(Answer):
    """An uploaded file of training rows."""

    id: str
    name: str
    format: str
    rows: int
    bytes: int
    sha256: str
    contents: Contents | None
    """None for datasets from before this was counted"""
    created_at: datetime
