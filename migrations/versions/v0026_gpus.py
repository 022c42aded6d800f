"""GPUs that a job asked for and has, those of a worker, and the devices by which attempts share a host's energy."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0026"
down_revision: str | None = "0025"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("gpus_asked", sa.Integer(), nullable=True, server_default="1"))
    op.add_column("jobs", sa.Column("gpus", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("workers", sa.Column("gpus", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("metered_attempts", sa.Column("devices", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("metered_attempts", "devices")
    op.drop_column("workers", "gpus")
    op.drop_column("jobs", "gpus")
    op.drop_column("jobs", "gpus_asked")
