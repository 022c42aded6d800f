"""Metering: which attempts share a host, energy that was lost with an attempt, and energy that no job used."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("energy_intervals", sa.Column("lost", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.alter_column("energy_intervals", "lost", server_default=None)
    op.create_table(
        "idle_energy",
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("component", sa.Text(), nullable=False),
        sa.Column("kwh", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("zone", "component", name=op.f("pk_idle_energy")),
    )
    op.create_table(
        "metered_hosts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("idle_until", postgresql.JSONB(astext_type=sa.Text(), none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metered_hosts")),
    )
    op.create_table(
        "metered_attempts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unstored_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("unstored_seconds", sa.Double(), nullable=False),
        sa.Column("pue", sa.Double(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("gpus", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("host_from", sa.Double(), nullable=True),
        sa.Column("host_seen", sa.Double(), nullable=True),
        sa.Column("host_until", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_metered_attempts_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_metered_attempts")),
    )
    op.create_index("ix_metered_attempts_host_host_until", "metered_attempts", ["host", "host_until"])


def downgrade() -> None:
    op.drop_index("ix_metered_attempts_host_host_until", table_name="metered_attempts")
    op.drop_table("metered_attempts")
    op.drop_table("metered_hosts")
    op.drop_table("idle_energy")
    op.drop_column("energy_intervals", "lost")
