"""Whether a worker's device computes in bfloat16, by which the memory of its runs is predicted."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("computes_bf16", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "computes_bf16")
