"""What has waited for the longest is found at once."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("generations") as table:
        table.create_index("ix_generations_age", ["status", "created_at", "id"])


def downgrade() -> None:
    with op.batch_alter_table("generations") as table:
        table.drop_index("ix_generations_age")
