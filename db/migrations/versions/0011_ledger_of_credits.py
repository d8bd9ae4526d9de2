"""Add the ledger of credits, with the credits used so far as opening entries."""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    ledger = op.create_table(
        "credit_movements",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("generation_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("credits_total", sa.Integer(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_credit_movements_subscription_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_movements")),
    )
    op.create_index(
        "ix_credit_movements_subscription", "credit_movements", ["subscription_id", "created_at", "id"]
    )
    op.create_index("ix_credit_movements_generation_id", "credit_movements", ["generation_id"])
    _open_accounts(ledger)


def _open_accounts(ledger: sa.Table) -> None:
    subscriptions = sa.table(
        "subscriptions",
        sa.column("id", sa.Uuid()),
        sa.column("credits_used", sa.Integer()),
        sa.column("credits_total", sa.Integer()),
        sa.column("start_date", sa.DateTime(timezone=True)),
    )
    now = datetime.now(UTC)
    entries = [
        {
            "id": uuid.uuid4(),
            "subscription_id": row.id,
            "kind": "opening",
            "amount": row.credits_used,
            "credits_total": row.credits_total,
            "period_start": row.start_date,
            "created_at": now,
            "updated_at": now,
        }
        for row in op.get_bind().execute(sa.select(subscriptions))
    ]
    if entries:
        op.bulk_insert(ledger, entries)


def downgrade() -> None:
    op.drop_table("credit_movements")
