"""Job name, and the indexes of job lists that are filtered by name or model."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

NAMED = sa.text("name IS NOT NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("name", sa.Text(), nullable=True))
    op.create_index("ix_jobs_model_id", "jobs", ["model", "id"])
    op.create_index("ix_jobs_owner_model_id", "jobs", ["owner", "model", "id"])
    op.create_index("ix_jobs_name_id", "jobs", ["name", "id"], postgresql_where=NAMED)
    op.create_index("ix_jobs_owner_name_id", "jobs", ["owner", "name", "id"], postgresql_where=NAMED)


def downgrade() -> None:
    op.drop_index("ix_jobs_owner_model_id", "jobs")
    op.drop_index("ix_jobs_model_id", "jobs")
    op.drop_column("jobs", "name")
