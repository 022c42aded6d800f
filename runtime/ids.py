"""Generates the ids of all entities: a type prefix and a UUIDv7, sortable by creation time."""

import uuid_utils


def new_id(prefix: str) -> str:
    """Return a new id such as `job_0197c1d2…`; later ids sort after earlier ones."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
