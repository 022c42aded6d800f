"""Learned turns: jobs that were submitted before keep learning a conversation's last message only."""

from collections.abc import Sequence

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("""UPDATE jobs SET hyperparameters = '{"train_on": "last"}'::jsonb || hyperparameters""")


def downgrade() -> None:
    op.execute("UPDATE jobs SET hyperparameters = hyperparameters - 'train_on'")
