"""Method that a job asked for, and the reason of the one that was chosen where it left that open."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0025"
down_revision: str | None = "0024"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("method_asked", sa.Text(), nullable=True))
    op.execute("UPDATE jobs SET method_asked = method")
    op.alter_column("jobs", "method_asked", nullable=False)
    op.add_column("jobs", sa.Column("method_reason", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("hyperparameters_asked", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "hyperparameters_asked")
    op.drop_column("jobs", "method_reason")
    op.drop_column("jobs", "method_asked")
