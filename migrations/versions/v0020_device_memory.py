"""Memory of a worker's device, by which a job that cannot fit is refused."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    # Before it was a setting no block recomputed, and a job that is stored without it keeps to that.
    op.execute("""UPDATE jobs SET hyperparameters = '{"gradient_checkpointing": false}'::jsonb || hyperparameters""")


def downgrade() -> None:
    op.drop_column("workers", "memory_bytes")
    op.execute("UPDATE jobs SET hyperparameters = hyperparameters - 'gradient_checkpointing'")
