"""FLOPs of an epoch of full fine-tuning with the logits of all positions; before, every run computed all."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("epochs", sa.Column("plain_full_flops", sa.Double(), nullable=True))
    op.execute("UPDATE epochs SET plain_full_flops = full_flops")


def downgrade() -> None:
    op.drop_column("epochs", "plain_full_flops")
