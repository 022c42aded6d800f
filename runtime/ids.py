"""The one place for ids: UUIDv7 behind a prefix that says what it names, sortable by creation time."""

import uuid_utils


def new_id(prefix: str) -> str:
    """A new id such as `job_0197c1d2…`: later ids sort after earlier ones."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
