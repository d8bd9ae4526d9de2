"""Store the trace context of the request with a generation."""

import sqlalchemy as sa

from db.migrations.batch import alter_table as changing

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with changing("generations") as table:
        table.add_column(sa.Column("trace_context", sa.String(64), nullable=True))


def downgrade() -> None:
    with changing("generations") as table:
        table.drop_column("trace_context")
