"""Add the warnings of predictions. Those of before have none."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # With a default, PostgreSQL does not rewrite the table, and no trigger fires.
    op.add_column("predictions", sa.Column("warnings", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("predictions", "warnings")
