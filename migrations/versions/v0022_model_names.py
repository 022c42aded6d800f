"""Names of a model's tensors and modules, with which a submission's patterns and targets are compared."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("models", sa.Column("names", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("models", "names")
