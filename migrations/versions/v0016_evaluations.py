"""Evaluations during the run: one row each, the best of a job and its checkpoint, and the energy that they used."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "evaluations",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=True) for name in ("accuracy", "rouge1", "rouge2", "rouge_l")),
        *(sa.Column(name, sa.Integer(), nullable=True) for name in ("rouge_rows", "rows")),
        *(sa.Column(name, sa.Double(), nullable=True) for name in ("seconds", "energy_kwh")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_evaluations_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "step", name=op.f("pk_evaluations")),
    )
    # Every epoch ended with an evaluation; its last step follows from those of the whole run.
    op.execute(
        "INSERT INTO evaluations (job_id, step, epoch, at, loss) "
        "SELECT job_id, number * steps / jobs.epochs, number, epochs.finished_at, eval_loss "
        "FROM epochs JOIN jobs ON jobs.id = epochs.job_id "
        "WHERE eval_loss < 'Infinity' AND epochs.finished_at IS NOT NULL AND steps > 0 AND jobs.epochs > 0"
    )
    op.add_column("jobs", sa.Column("best", JSONB(), nullable=True))
    op.execute(
        "UPDATE jobs SET best = (SELECT jsonb_build_object('step', step, 'epoch', epoch, 'loss', loss) "
        "FROM evaluations WHERE job_id = jobs.id ORDER BY loss, step LIMIT 1) "
        "WHERE EXISTS (SELECT FROM evaluations WHERE job_id = jobs.id)"
    )
    for table, column in (("checkpoints", "best"), ("energy_intervals", "evaluation")):
        op.add_column(table, sa.Column(column, sa.Boolean(), nullable=False, server_default=sa.false()))
        op.alter_column(table, column, server_default=None)


def downgrade() -> None:
    op.drop_column("energy_intervals", "evaluation")
    op.drop_column("checkpoints", "best")
    op.drop_column("jobs", "best")
    op.drop_table("evaluations")
