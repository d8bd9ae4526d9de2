"""Add the time of the last refresh to sessions, and the predecessor to refresh tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("refresh_tokens", sa.Column("predecessor_id", sa.Uuid(), nullable=True))
    op.create_index(op.f("ix_refresh_tokens_predecessor_id"), "refresh_tokens", ["predecessor_id"])
    op.create_foreign_key(
        op.f("fk_refresh_tokens_predecessor_id"),
        "refresh_tokens",
        "refresh_tokens",
        ["predecessor_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.add_column("token_families", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    # The sign-in and each refresh created one token, so the newest token has the time.
    op.execute(
        "UPDATE token_families SET last_used_at = coalesce((SELECT max(refresh_tokens.created_at) "
        "FROM refresh_tokens WHERE refresh_tokens.family_id = token_families.id), created_at)"
    )
    op.alter_column(
        "token_families", "last_used_at", existing_type=sa.DateTime(timezone=True), nullable=False
    )


def downgrade() -> None:
    op.drop_column("token_families", "last_used_at")
    op.drop_constraint(op.f("fk_refresh_tokens_predecessor_id"), "refresh_tokens", type_="foreignkey")
    op.drop_index(op.f("ix_refresh_tokens_predecessor_id"), "refresh_tokens")
    op.drop_column("refresh_tokens", "predecessor_id")
