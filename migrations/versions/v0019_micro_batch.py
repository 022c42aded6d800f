"""Micro-batch of a job: rows computed at once, where they were measured or halved."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("micro_batch_size", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "micro_batch_size")
