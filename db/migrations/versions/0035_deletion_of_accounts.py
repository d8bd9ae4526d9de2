"""Add the scheduled deletions of accounts."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import IS_CALLER_ACCOUNT, disable_rls, enable_rls

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

TABLE = "account_deletions"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.String(128), nullable=False),
        sa.Column("deletes_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f(f"fk_{TABLE}_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
        sa.UniqueConstraint("user_id", name=op.f(f"uq_{TABLE}_user_id")),
        sa.UniqueConstraint("token_hash", name=op.f(f"uq_{TABLE}_token_hash")),
    )
    op.create_index(op.f(f"ix_{TABLE}_deletes_at"), TABLE, ["deletes_at"])
    enable_rls(TABLE, IS_CALLER_ACCOUNT)


def downgrade() -> None:
    disable_rls(TABLE)
    op.drop_table(TABLE)
