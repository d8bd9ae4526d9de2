"""Index the oldest generations per status."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_generations_age", "generations", ["status", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_generations_age", "generations")
