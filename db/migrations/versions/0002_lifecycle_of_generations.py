"""Add cancellation, retries, deadlines and revisions of generations."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("generations", sa.Column("revision", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("generations", sa.Column("retry_of_id", sa.Uuid(), nullable=True))
    op.add_column("generations", sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("generations", sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_generations_deadline", "generations", ["status", "deadline_at"])
    op.create_index("ix_generations_retry_of_id", "generations", ["retry_of_id"])
    op.create_foreign_key(
        op.f("fk_generations_retry_of_id"),
        "generations",
        "generations",
        ["retry_of_id"],
        ["id"],
        ondelete="SET NULL",
    )
    # The default fills existing rows; new rows get it from the model.
    op.alter_column("generations", "revision", server_default=None)


def downgrade() -> None:
    op.drop_constraint(op.f("fk_generations_retry_of_id"), "generations", type_="foreignkey")
    op.drop_index("ix_generations_retry_of_id", "generations")
    op.drop_index("ix_generations_deadline", "generations")
    for column in ("cancel_requested_at", "deadline_at", "retry_of_id", "revision"):
        op.drop_column("generations", column)
