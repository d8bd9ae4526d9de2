"""Index pending webhook deliveries across endpoints."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    columns = ["status", "next_attempt_at", "endpoint_id"]
    op.create_index("ix_webhook_deliveries_waiting", "webhook_deliveries", columns)


def downgrade() -> None:
    op.drop_index("ix_webhook_deliveries_waiting", table_name="webhook_deliveries")
