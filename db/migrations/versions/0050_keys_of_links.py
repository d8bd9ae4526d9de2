"""Add the API key that made a review link or a share link: the link ends with it."""

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None

TABLES = ("prediction_shares", "review_links")


def upgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table, reflect_kwargs={"resolve_fks": False}) as batch:
            batch.add_column(sa.Column("api_key_id", sa.Uuid(), nullable=True))
            batch.create_foreign_key(
                op.f(f"fk_{table}_api_key_id"), "api_keys", ["api_key_id"], ["id"], ondelete="CASCADE"
            )
            batch.create_index(op.f(f"ix_{table}_api_key_id"), ["api_key_id"])


def downgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table, reflect_kwargs={"resolve_fks": False}) as batch:
            batch.drop_index(op.f(f"ix_{table}_api_key_id"))
            batch.drop_constraint(op.f(f"fk_{table}_api_key_id"), type_="foreignkey")
            batch.drop_column("api_key_id")
