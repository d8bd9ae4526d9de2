"""Index the time at which generations start: the scheduler serves the tenants in turn."""

from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_generations_started_at"), "generations", ["started_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_generations_started_at"), "generations")
