"""Settlement: indexes by which energy without a final price is found job by job."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INTERVALS = "energy_intervals"


def upgrade() -> None:
    op.drop_index("ix_energy_intervals_provisional", table_name=INTERVALS)
    _index("ix_energy_intervals_provisional", ["zone", "job_id", "finished_at"], where="NOT settled")
    _index("ix_energy_intervals_unpriced", ["job_id", "finished_at"], where="emissions_gco2e IS NULL")
    op.create_index(
        "ix_jobs_unaccounted", "jobs", ["id"], postgresql_where=sa.text("settled_at IS NULL AND energy_kwh > 0")
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_unaccounted", table_name="jobs")
    op.drop_index("ix_energy_intervals_unpriced", table_name=INTERVALS)
    op.drop_index("ix_energy_intervals_provisional", table_name=INTERVALS)
    _index("ix_energy_intervals_provisional", ["finished_at"], where="NOT settled")


def _index(name: str, columns: list[str], *, where: str) -> None:
    op.create_index(name, INTERVALS, columns, postgresql_where=sa.text(where))
