"""Add to memberships since when their organization is suspended."""

import sqlalchemy as sa
from alembic import op

revision = "0061"
down_revision = "0060"
branch_labels = None
depends_on = None

LOST = {"memberships": ("suspended_at",)}


def upgrade() -> None:
    op.add_column("memberships", sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("memberships", "suspended_at")
