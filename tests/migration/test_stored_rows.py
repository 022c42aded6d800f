"""Rows in every table of every earlier revision survive the upgrade to the newest one, and the downgrade."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, MetaData, Table, create_engine, select
from sqlalchemy.pool import NullPool

from migrations.upgrade import _config, downgrade, expected_revision, upgrade
from store.tables import Table as Tables

REVISIONS = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]
EARLIER = sorted(set(REVISIONS) - {expected_revision()})
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
# Values of columns that do not accept any text: the first schema had only this signal.
KNOWN_WORDS = {"status": "queued", "signal": "average"}
NUMBER_LISTS = {"importance"}
# Given to the jobs of an earlier release, so that they mean what they meant then.
ADDED_SETTINGS = {"precision": "mixed", "train_on": "last", "gradient_checkpointing": False}
Rows = dict[str, list[dict[str, Any]]]


@pytest.mark.parametrize("revision", EARLIER)
def test_rows_of_every_table_survive_upgrade_and_downgrade(empty_database_url: str, revision: str) -> None:
    upgrade(empty_database_url, revision)
    engine = create_engine(empty_database_url, poolclass=NullPool)
    tables = _tables(engine)
    with engine.begin() as connection:
        for table in tables:
            for number in (0, 1):
                connection.execute(table.insert().values(_row(table, number)))
        before = _rows(connection, tables)
    assert {name for name, rows in before.items() if len(rows) != 2} == set()

    upgrade(empty_database_url)

    with engine.connect() as connection:
        kept = _rows(connection, _tables(engine))
        for mapper in Tables.registry.mappers:
            read = connection.execute(select(mapper.local_table)).all()
            assert len(read) == len(kept[mapper.local_table.fullname])  # type: ignore[attr-defined]
    if revision < "0013":
        assert all(row["hyperparameters"]["train_on"] == ADDED_SETTINGS["train_on"] for row in kept["jobs"])
    for name, rows in before.items():
        for row, then in zip(rows, kept[name], strict=True):
            assert {column: _upgraded_value(name, column, then) for column in row} == row, name

    downgrade(empty_database_url, revision)

    with engine.connect() as connection:
        assert _rows(connection, _tables(engine)) == before


def test_a_waiting_job_gets_the_precision_in_which_its_run_began(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0022")
    engine = create_engine(empty_database_url, poolclass=NullPool)
    with engine.begin() as connection:
        tables = {table.name: table for table in _tables(engine)}
        begun, waiting = ({**_row(tables["jobs"], 1), "id": name} for name in ("begun", "waiting"))
        connection.execute(tables["datasets"].insert().values(_row(tables["datasets"], 1)))
        connection.execute(tables["jobs"].insert().values([begun, waiting]))
        started = {"job_id": "begun", "at": NOW, "type": "training.started", "data": {"precision": "bf16"}}
        connection.execute(tables["events"].insert().values(started))

    upgrade(empty_database_url)

    with engine.connect() as connection:
        [jobs] = [table for table in _tables(engine) if table.name == "jobs"]
        found = {row.id: row.precision for row in connection.execute(select(jobs))}
    assert found == {"begun": "bf16", "waiting": None}


def _upgraded_value(table: str, column: str, row: dict[str, Any]) -> Any:
    """Return the value in a row of the newest schema that replaces an earlier schema's column."""
    if (table, column) == ("workers", "zones"):  # replaced by the one zone of the worker's site
        return [row["zone"]]
    if (table, column) == ("metered_hosts", "idle_until"):
        return row["idle"]
    if (table, column) == ("jobs", "hyperparameters"):
        settings = row["hyperparameters"]
        return {name: value for name, value in settings.items() if ADDED_SETTINGS.get(name) != value}
    return row[column]


def _tables(engine: Engine) -> list[Table]:
    """Return the tables in the database, referenced ones first."""
    found = MetaData()
    found.reflect(engine)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def _rows(connection: Connection, tables: list[Table]) -> Rows:
    return {
        table.name: [
            dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key.columns))
        ]
        for table in tables
    }


def _row(table: Table, number: int) -> dict[str, Any]:
    """Return a row with a value in each column (0), or in required columns only (1)."""
    columns = [column for column in table.columns if column.identity is None]
    return {column.name: _value(column, number) for column in columns if number == 0 or not column.nullable}


def _value(column: Column[Any], number: int) -> Any:
    for reference in column.foreign_keys:
        return _value(reference.column, number)
    if column.name in KNOWN_WORDS and type(column.type).__name__ in ("TEXT", "VARCHAR"):
        return KNOWN_WORDS[column.name]
    kind = (
        column.type.python_type if type(column.type).__name__ not in ("JSONB", "ARRAY") else type(column.type).__name__
    )
    values: dict[Any, Any] = {
        str: f"{column.name} {number}",
        int: number,
        float: number + 0.5,
        bool: True,
        datetime: NOW + timedelta(hours=number),
        "JSONB": {"a": [number, None, "é"]},
        "ARRAY": [number + 0.5 if column.name in NUMBER_LISTS else f"{column.name} {number}"],
    }
    return values[kind]
