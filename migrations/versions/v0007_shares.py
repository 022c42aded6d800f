"""Shares: what an attempt's meter measured for others, what its device is taken to draw, and a host's idle power."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("metered_attempts", sa.Column("assumed_power_w", sa.Double(), nullable=True))
    op.add_column("metered_attempts", sa.Column("shared_out_kwh", sa.Double(), nullable=False, server_default="0"))
    op.alter_column("metered_attempts", "shared_out_kwh", server_default=None)
    op.alter_column("metered_hosts", "idle_until", new_column_name="idle")


def downgrade() -> None:
    op.alter_column("metered_hosts", "idle", new_column_name="idle_until")
    op.drop_column("metered_attempts", "shared_out_kwh")
    op.drop_column("metered_attempts", "assumed_power_w")
