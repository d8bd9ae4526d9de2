"""Add the task id, the polls and the fallback of generations that run at a remote provider."""

import sqlalchemy as sa

from db.migrations.batch import alter_table as changing

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with changing("generations") as table:
        table.add_column(sa.Column("fallen_back", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("remote_task_id", sa.String(200), nullable=True))
        table.add_column(sa.Column("remote_steps", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("remote_failures", sa.Integer(), nullable=False, server_default="0"))
        table.create_index("ix_generations_remote_task_id", ["remote_task_id"])
    # The defaults fill existing rows; new rows get them from the model.
    with changing("generations") as table:
        for column in ("fallen_back", "remote_steps", "remote_failures"):
            table.alter_column(column, server_default=None)


def downgrade() -> None:
    with changing("generations") as table:
        table.drop_index("ix_generations_remote_task_id")
        for column in ("remote_failures", "remote_steps", "remote_task_id", "fallen_back"):
            table.drop_column(column)
