"""Add the callbacks of remote providers that were accepted."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_callbacks",
        sa.Column("message_id", sa.String(200), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_callbacks")),
        sa.UniqueConstraint("message_id", name=op.f("uq_task_callbacks_message_id")),
    )
    op.create_index("ix_task_callbacks_age", "task_callbacks", ["created_at"])


def downgrade() -> None:
    op.drop_table("task_callbacks")
