"""Add the task id, the polls and the fallback of generations that run at a remote provider."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "generations", sa.Column("fallen_back", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("generations", sa.Column("remote_task_id", sa.String(200), nullable=True))
    op.add_column("generations", sa.Column("remote_steps", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(
        "generations", sa.Column("remote_failures", sa.Integer(), nullable=False, server_default="0")
    )
    op.create_index("ix_generations_remote_task_id", "generations", ["remote_task_id"])
    # The defaults fill existing rows; new rows get them from the model.
    for column in ("fallen_back", "remote_steps", "remote_failures"):
        op.alter_column("generations", column, server_default=None)


def downgrade() -> None:
    op.drop_index("ix_generations_remote_task_id", "generations")
    for column in ("remote_failures", "remote_steps", "remote_task_id", "fallen_back"):
        op.drop_column("generations", column)
