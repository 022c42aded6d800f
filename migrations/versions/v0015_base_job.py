"""Base job: the finished job whose result a job trains further."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_jobs_status_base_job_id"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("base_job_id", sa.Text(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_base_job_id"), "jobs", "jobs", ["base_job_id"], ["id"])
    op.create_index(INDEX, "jobs", ["status", "base_job_id"], postgresql_where=sa.text("base_job_id IS NOT NULL"))


def downgrade() -> None:
    op.drop_index(INDEX, "jobs")
    op.drop_column("jobs", "base_job_id")
