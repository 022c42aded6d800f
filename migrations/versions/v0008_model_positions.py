"""The longest row that a model of the catalogue has positions for."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("models", sa.Column("max_length", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("models", "max_length")
