"""Add the time of the last refresh to sessions, and the predecessor to refresh tokens."""

import sqlalchemy as sa
from alembic import op

from db.migrations.batch import alter_table as changing

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with changing("refresh_tokens") as table:
        table.add_column(sa.Column("predecessor_id", sa.Uuid(), nullable=True))
        table.create_index(op.f("ix_refresh_tokens_predecessor_id"), ["predecessor_id"])
        table.create_foreign_key(
            op.f("fk_refresh_tokens_predecessor_id"),
            "refresh_tokens",
            ["predecessor_id"],
            ["id"],
            ondelete="CASCADE",
        )
    with changing("token_families") as table:
        table.add_column(sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    # The sign-in and each refresh created one token, so the newest token has the time.
    op.execute(
        "UPDATE token_families SET last_used_at = coalesce((SELECT max(refresh_tokens.created_at) "
        "FROM refresh_tokens WHERE refresh_tokens.family_id = token_families.id), created_at)"
    )
    with changing("token_families") as table:
        table.alter_column("last_used_at", existing_type=sa.DateTime(timezone=True), nullable=False)


def downgrade() -> None:
    with changing("token_families") as table:
        table.drop_column("last_used_at")
    with changing("refresh_tokens") as table:
        table.drop_constraint(op.f("fk_refresh_tokens_predecessor_id"), type_="foreignkey")
        table.drop_index(op.f("ix_refresh_tokens_predecessor_id"))
        table.drop_column("predecessor_id")
