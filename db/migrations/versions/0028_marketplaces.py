"""Add the marketplace of guidelines, and the compliance of predictions with its rules."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # With a default, PostgreSQL does not rewrite the table, and no trigger fires.
    op.add_column("predictions", sa.Column("compliance", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("guidelines", sa.Column("marketplace", sa.String(40), nullable=True))


def downgrade() -> None:
    op.drop_column("guidelines", "marketplace")
    op.drop_column("predictions", "compliance")
