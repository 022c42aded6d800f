"""Carbon: forecasts, average and marginal intensities apart, gates, and prices that settle."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JOB_COLUMNS: tuple[tuple[str, sa.types.TypeEngine[Any]], ...] = (
    ("ready_at", sa.DateTime(timezone=True)),
    ("not_before", sa.DateTime(timezone=True)),
    ("signal", sa.Text()),
    ("gate", postgresql.JSONB()),
    ("utility", postgresql.JSONB()),
    ("tracker_kwh", sa.Double()),
    ("settled_at", sa.DateTime(timezone=True)),
    ("counterfactuals", postgresql.JSONB()),
)


def upgrade() -> None:
    op.create_table(
        "intensity_forecasts",
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("signal", sa.Text(), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gco2e_per_kwh", sa.Double(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("emission_factors", sa.Text(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("zone", "signal", "start", name=op.f("pk_intensity_forecasts")),
    )
    # The sources known so far, yearly means and recorded traces, count the life cycle.
    _add("intensity_readings", sa.Column("emission_factors", sa.Text(), nullable=False), existing="lifecycle")
    op.drop_constraint("pk_intensity_readings", "intensity_readings", type_="primary")
    op.create_primary_key("pk_intensity_readings", "intensity_readings", ["zone", "signal", "start"])
    _add("energy_intervals", sa.Column("pue", sa.Double(), nullable=False), existing="1")
    _add("energy_intervals", sa.Column("settled", sa.Boolean(), nullable=False), existing="false")
    op.create_index(
        "ix_energy_intervals_provisional",
        "energy_intervals",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("NOT settled"),
    )
    op.add_column("epochs", sa.Column("intensity_step", sa.Text(), nullable=True))
    for name, kind in JOB_COLUMNS:
        op.add_column("jobs", sa.Column(name, kind, nullable=True))
    op.execute("UPDATE jobs SET ready_at = queued_at")
    op.execute("UPDATE jobs SET signal = 'average' WHERE zone IS NOT NULL")


def downgrade() -> None:
    for name, _ in reversed(JOB_COLUMNS):
        op.drop_column("jobs", name)
    op.drop_column("epochs", "intensity_step")
    op.drop_index("ix_energy_intervals_provisional", table_name="energy_intervals")
    op.drop_column("energy_intervals", "settled")
    op.drop_column("energy_intervals", "pue")
    # Without its signal a marginal reading could not be told from an average one.
    op.execute("DELETE FROM intensity_readings WHERE signal <> 'average'")
    op.drop_constraint("pk_intensity_readings", "intensity_readings", type_="primary")
    op.create_primary_key("pk_intensity_readings", "intensity_readings", ["zone", "start"])
    op.drop_column("intensity_readings", "emission_factors")
    op.drop_table("intensity_forecasts")


def _add(table: str, column: sa.Column[object], *, existing: str) -> None:
    """Add a column that must hold a value; rows that are there get `existing`, new ones have to bring theirs."""
    name = column.name
    column.server_default = sa.DefaultClause(existing)
    op.add_column(table, column)
    op.alter_column(table, name, server_default=None)
