"""Add the counts of password and token attempts, and the known addresses of users."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "try_counts",
        sa.Column("policy", sa.String(40), nullable=False),
        sa.Column("subject_hash", sa.String(64), nullable=False),
        sa.Column("state", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("policy", "subject_hash", name=op.f("pk_try_counts")),
    )
    op.create_index(op.f("ix_try_counts_state"), "try_counts", ["state"])
    op.create_table(
        "known_addresses",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("address_hash", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_known_addresses_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "address_hash", name=op.f("pk_known_addresses")),
    )
    op.create_index(op.f("ix_known_addresses_expires_at"), "known_addresses", ["expires_at"])


def downgrade() -> None:
    op.drop_table("known_addresses")
    op.drop_table("try_counts")
