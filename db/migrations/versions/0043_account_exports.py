"""Add the copies of personal data that users request."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import IS_CALLER_ACCOUNT, disable_rls, enable_rls

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None

TABLE = "account_exports"
IS_OPEN = sa.text("status IN ('pending', 'running')")


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(100), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("file_size", sa.BigInteger(), nullable=True),
        sa.Column("content_hash", sa.String(64), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f(f"fk_{TABLE}_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
    )
    op.create_index(op.f(f"ix_{TABLE}_expires_at"), TABLE, ["expires_at"])
    op.create_index(f"ix_{TABLE}_user", TABLE, ["user_id", "created_at", "id"])
    op.create_index(f"ix_{TABLE}_queue", TABLE, ["status", "created_at", "id"])
    op.create_index(f"uq_{TABLE}_open", TABLE, ["user_id"], unique=True, postgresql_where=IS_OPEN)
    enable_rls(TABLE, IS_CALLER_ACCOUNT)


def downgrade() -> None:
    disable_rls(TABLE)
    op.drop_table(TABLE)
