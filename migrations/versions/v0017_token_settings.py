"""Token statistics by prompt format and learned turns, with a preview of the first rows."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLE = "token_statistics"
KEY = ["dataset_id", "model"]
# What was counted before: prompts as they are, and of a conversation the last message.
FORMER = {"prompt_format": "plain", "train_on": "last"}


def upgrade() -> None:
    for name, value in FORMER.items():
        op.add_column(TABLE, sa.Column(name, sa.Text(), nullable=False, server_default=value))
        op.alter_column(TABLE, name, server_default=None)
    op.add_column(TABLE, sa.Column("preview", JSONB(), nullable=True))
    op.drop_constraint(op.f("pk_token_statistics"), TABLE)
    op.create_primary_key(op.f("pk_token_statistics"), TABLE, [*KEY, *FORMER])


def downgrade() -> None:
    op.execute("DELETE FROM token_statistics WHERE prompt_format <> 'plain' OR train_on <> 'last'")
    op.drop_constraint(op.f("pk_token_statistics"), TABLE)
    op.create_primary_key(op.f("pk_token_statistics"), TABLE, KEY)
    for name in ("preview", *FORMER):
        op.drop_column(TABLE, name)
