"""Add the time of archiving to subjects, styles and shot types."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

TABLES = ("shot_types", "styles", "subjects")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Drop the column. Archived rows stay: references to them remain valid, and superusers see them again."""
    for table in TABLES:
        op.drop_column(table, "archived_at")
