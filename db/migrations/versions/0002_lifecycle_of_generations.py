"""Add cancellation, retries, deadlines and revisions of generations."""

import sqlalchemy as sa
from alembic import op

from db.migrations.batch import alter_table as changing

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with changing("generations") as table:
        table.add_column(sa.Column("revision", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("retry_of_id", sa.Uuid(), nullable=True))
        table.add_column(sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True))
        table.create_index("ix_generations_deadline", ["status", "deadline_at"])
        table.create_index("ix_generations_retry_of_id", ["retry_of_id"])
        table.create_foreign_key(
            op.f("fk_generations_retry_of_id"), "generations", ["retry_of_id"], ["id"], ondelete="SET NULL"
        )
    # The default fills existing rows; new rows get it from the model.
    with changing("generations") as table:
        table.alter_column("revision", server_default=None)


def downgrade() -> None:
    with changing("generations") as table:
        table.drop_constraint(op.f("fk_generations_retry_of_id"), type_="foreignkey")
        table.drop_index("ix_generations_retry_of_id")
        table.drop_index("ix_generations_deadline")
        for column in ("cancel_requested_at", "deadline_at", "retry_of_id", "revision"):
            table.drop_column(column)
