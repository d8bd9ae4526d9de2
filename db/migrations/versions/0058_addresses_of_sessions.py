"""Add the address of the sign-in to sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0058"
down_revision = "0057"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("token_families", sa.Column("address", sa.String(45), nullable=True))


def downgrade() -> None:
    op.drop_column("token_families", "address")
