"""Add webhook endpoints whose messages clients poll."""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

IS_WAITING = sa.text("status = 'pending' AND next_attempt_at IS NULL")


def upgrade() -> None:
    op.add_column(
        "webhook_endpoints", sa.Column("delivery", sa.String(10), nullable=False, server_default="push")
    )
    op.alter_column("webhook_endpoints", "url", existing_type=sa.String(2048), nullable=True)
    op.create_index(
        "ix_webhook_deliveries_pull",
        "webhook_deliveries",
        ["endpoint_id", "message_id"],
        postgresql_where=IS_WAITING,
    )


def downgrade() -> None:
    op.drop_index("ix_webhook_deliveries_pull", "webhook_deliveries")
    op.execute("DELETE FROM webhook_endpoints WHERE delivery = 'pull'")
    op.alter_column("webhook_endpoints", "url", existing_type=sa.String(2048), nullable=False)
    op.drop_column("webhook_endpoints", "delivery")
