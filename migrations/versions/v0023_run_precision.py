"""Precision of a job's run, in which it goes on upon another device, and by which that device's memory is judged."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("precision", sa.Text(), nullable=True))
    op.execute("""
        UPDATE jobs SET precision = (
            SELECT data ->> 'precision' FROM events
            WHERE job_id = jobs.id AND type = 'training.started' ORDER BY id DESC LIMIT 1
        ) WHERE status NOT IN ('succeeded', 'cancelled')
    """)


def downgrade() -> None:
    op.drop_column("jobs", "precision")
