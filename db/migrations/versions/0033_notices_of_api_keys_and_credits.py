"""Add the times of the events `credits.low` and `api_key.expiring`."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("credits_low_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("next_expiry_notice_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_api_keys_next_expiry_notice_at", "api_keys", ["next_expiry_notice_at"])
    # A time that has passed: the periodic task then finds the next event of each key.
    op.execute("UPDATE api_keys SET next_expiry_notice_at = created_at")


def downgrade() -> None:
    op.drop_index("ix_api_keys_next_expiry_notice_at", "api_keys")
    op.drop_column("api_keys", "next_expiry_notice_at")
    op.drop_column("subscriptions", "credits_low_at")
