"""Accounting basis: the emission factors by which a job is steered and priced, beside its signal."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("emission_factors", sa.Text(), nullable=True))
    # A job that was placed before keeps to what its zone's readings count.
    op.execute(
        "UPDATE jobs SET emission_factors = coalesce("
        "(SELECT reading.emission_factors FROM intensity_readings AS reading "
        "WHERE reading.zone = jobs.zone AND reading.signal = jobs.signal ORDER BY start DESC LIMIT 1), 'lifecycle') "
        "WHERE signal IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_column("jobs", "emission_factors")
