"""Sites: a training worker stands in one zone, with one PUE; metered energy keeps the zone in which it was used."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("zone", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("pue", sa.Double(), nullable=True))
    # A worker that served several zones did not say in which of them it stood.
    op.execute(
        "UPDATE workers SET zone = CASE WHEN cardinality(zones) = 1 THEN zones[1] ELSE 'site-unknown' END, pue = 1 "
        "WHERE role = 'train' OR cardinality(zones) > 0"
    )
    op.drop_column("workers", "zones")
    op.add_column("energy_intervals", sa.Column("zone", sa.Text(), nullable=True))
    op.execute(
        "UPDATE energy_intervals SET zone = coalesce("
        "(SELECT coalesce(jobs.zone, jobs.zone_asked) FROM jobs WHERE jobs.id = job_id), 'site-unknown')"
    )
    op.alter_column("energy_intervals", "zone", nullable=False)


def downgrade() -> None:
    op.drop_column("energy_intervals", "zone")
    op.add_column("workers", sa.Column("zones", postgresql.ARRAY(sa.Text()), nullable=False, server_default="{}"))
    op.alter_column("workers", "zones", server_default=None)
    op.execute("UPDATE workers SET zones = ARRAY[zone] WHERE zone IS NOT NULL")
    op.drop_column("workers", "pue")
    op.drop_column("workers", "zone")
