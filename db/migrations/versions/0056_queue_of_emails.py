"""Add the queue of e-mails."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import deny_all, disable_rls

revision = "0056"
down_revision = "0055"
branch_labels = None
depends_on = None

LOST = {"queued_emails": ()}

TABLE = "queued_emails"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(100), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(100), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queued_emails")),
    )
    op.create_index("ix_queued_emails_status", TABLE, ["status", "created_at"])
    deny_all(TABLE)


def downgrade() -> None:
    disable_rls(TABLE)
    op.drop_table(TABLE)
