"""Add the API key that made a review link or a share link: the link ends with it."""

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None

LOST = {"prediction_shares": ("api_key_id",), "review_links": ("api_key_id",)}

TABLES = ("prediction_shares", "review_links")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("api_key_id", sa.Uuid(), nullable=True))
        op.create_foreign_key(
            op.f(f"fk_{table}_api_key_id"), table, "api_keys", ["api_key_id"], ["id"], ondelete="CASCADE"
        )
        op.create_index(op.f(f"ix_{table}_api_key_id"), table, ["api_key_id"])


def downgrade() -> None:
    for table in TABLES:
        op.drop_index(op.f(f"ix_{table}_api_key_id"), table)
        op.drop_constraint(op.f(f"fk_{table}_api_key_id"), table, type_="foreignkey")
        op.drop_column(table, "api_key_id")
