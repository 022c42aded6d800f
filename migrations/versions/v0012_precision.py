"""Precision: jobs submitted before keep float32 weights, computed with in bfloat16 where the device does."""

from collections.abc import Sequence

from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("""UPDATE jobs SET hyperparameters = '{"precision": "mixed"}'::jsonb || hyperparameters""")


def downgrade() -> None:
    op.execute("UPDATE jobs SET hyperparameters = hyperparameters - 'precision'")
