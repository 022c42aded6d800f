"""Validation dataset: the dataset that a job is evaluated on, in place of a share of its rows."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_jobs_validation_dataset_id_id"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("validation_dataset_id", sa.Text(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_validation_dataset_id"), "jobs", "datasets", ["validation_dataset_id"], ["id"])
    op.create_index(
        INDEX,
        "jobs",
        ["validation_dataset_id", "id"],
        postgresql_where=sa.text("validation_dataset_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(INDEX, "jobs")
    op.drop_column("jobs", "validation_dataset_id")
