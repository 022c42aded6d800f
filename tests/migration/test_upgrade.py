"""Migrations lead to the tables in the code, on a real database."""

from threading import Thread

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from migrations.upgrade import current_revision, downgrade, expected_revision, upgrade
from store.database import Database
from store.tables import Table


def test_upgrading_an_empty_database_gives_exactly_the_tables_of_the_code(empty_database_url: str) -> None:
    upgrade(empty_database_url)

    database = Database(empty_database_url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []
        assert current_revision(connection) == expected_revision()
    database.dispose()


def test_downgrading_to_base_leaves_no_table_behind(empty_database_url: str) -> None:
    upgrade(empty_database_url)

    downgrade(empty_database_url, "base")

    database = Database(empty_database_url)
    with database.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}
        assert current_revision(connection) is None
    database.dispose()


def test_upgrading_twice_changes_nothing(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    upgrade(empty_database_url)

    database = Database(empty_database_url)
    with database.engine.connect() as connection:
        assert current_revision(connection) == expected_revision()
    database.dispose()


def test_processes_that_upgrade_at_the_same_time_take_turns(empty_database_url: str) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            upgrade(empty_database_url)
        except BaseException as error:  # noqa: BLE001  (a thread's error would otherwise be lost)
            errors.append(error)

    threads = [Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


def test_readings_of_the_first_schema_get_lifecycle_emission_factors(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0001")
    database = Database(empty_database_url)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO intensity_readings VALUES "
            "('FR', '2026-01-01T00:00Z', '2026-01-01T01:00Z', 56, 'static', 'average', true, '2026-01-01T00:00Z')"
        )

    upgrade(empty_database_url)
    with database.engine.begin() as connection:
        found = connection.exec_driver_sql("SELECT zone, gco2e_per_kwh, emission_factors FROM intensity_readings")
        assert found.all() == [("FR", 56.0, "lifecycle")]
        connection.exec_driver_sql(
            'INSERT INTO intensity_readings (zone, signal, start, "end", gco2e_per_kwh, source, emission_factors, '
            "estimated, fetched_at) VALUES ('FR', 'marginal', '2026-01-01T00:00Z', '2026-01-01T01:00Z', 300, "
            "'watttime', 'direct', false, '2026-01-01T00:00Z')"
        )

    downgrade(empty_database_url, "0001")
    with database.engine.begin() as connection:
        found = connection.exec_driver_sql("SELECT zone, gco2e_per_kwh, signal FROM intensity_readings")
        assert found.all() == [("FR", 56.0, "average")]
    database.dispose()
