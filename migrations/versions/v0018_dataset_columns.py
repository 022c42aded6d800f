"""The compression of an uploaded file, and the columns that its rows were taken from."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("compression", sa.Text(), nullable=True))
    op.add_column("datasets", sa.Column("columns", postgresql.JSONB(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("datasets", "columns")
    op.drop_column("datasets", "compression")
