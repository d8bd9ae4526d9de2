"""Add the address of the sign-in to sessions, and who requested generations, imports
and uploads."""

import sqlalchemy as sa
from alembic import op

revision = "0058"
down_revision = "0057"
branch_labels = None
depends_on = None


LOST = {"token_families": ("address",)}
REQUESTERS = (
    ("generations", "requested_by_id"), ("product_imports", "requested_by_id"),
    ("product_imports", "api_key_id"), ("uploads", "api_key_id"),
)  # fmt: skip


def upgrade() -> None:
    op.add_column("token_families", sa.Column("address", sa.String(45), nullable=True))
    for table, column in REQUESTERS:
        op.add_column(table, sa.Column(column, sa.Uuid(), nullable=True))


def downgrade() -> None:
    # The older release does not know these values.
    op.execute("ALTER TABLE audit_events DISABLE TRIGGER USER")
    op.execute("UPDATE audit_events SET actor_type = 'user' WHERE actor_type = 'operator'")
    op.execute("ALTER TABLE audit_events ENABLE TRIGGER USER")
    op.execute(
        "UPDATE generations SET error = NULL WHERE status = 'canceled' AND error->>'category' = 'permission'"
    )
    for table, column in REQUESTERS:
        op.drop_column(table, column)
    op.drop_column("token_families", "address")
