"""Add what API keys use of the contract, and when their owners were last told of deprecated parts."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import IN_CALLER_ORGANIZATIONS, disable_rls, enable_rls

revision = "0062"
down_revision = "0061"
branch_labels = None
depends_on = None

TABLE = "api_usage"
NOTIFIED = "deprecated_use_notified_at"
LOST = {TABLE: (), "api_keys": (NOTIFIED,)}


def upgrade() -> None:
    op.add_column("api_keys", sa.Column(NOTIFIED, sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("operation_id", sa.String(80), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("is_deprecated", sa.Boolean(), nullable=False),
        sa.Column("sunset_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("replacement", sa.String(500), nullable=True),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name=op.f(f"fk_{TABLE}_api_key_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
        sa.UniqueConstraint(
            "api_key_id", "day", "operation_id", "kind", "name", name=op.f(f"uq_{TABLE}_part")
        ),
    )
    op.create_index(f"ix_{TABLE}_organization", TABLE, ["organization_id", "created_at", "id"])
    op.create_index(f"ix_{TABLE}_created", TABLE, ["created_at", "id"])
    op.create_index(
        f"ix_{TABLE}_deprecated",
        TABLE,
        ["organization_id", "created_at", "id"],
        postgresql_where=sa.text("is_deprecated"),
    )
    enable_rls(TABLE, IN_CALLER_ORGANIZATIONS)


def downgrade() -> None:
    disable_rls(TABLE)
    op.drop_table(TABLE)
    op.drop_column("api_keys", NOTIFIED)
