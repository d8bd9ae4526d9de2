"""Add the counter cache of growing tables, and the triggers that maintain it."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import APPLICATION_ROLE, NONE, USER_ID, disable_rls, enable_rls
from db.migrations.frozen.row_counts import create_count_triggers, drop_count_triggers

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# The columns by whose values the rows of a table are counted.
KEPT = {
    "brands": (),
    "exports": ("status",),
    "generations": ("status", "generation_strategy"),
    "guidelines": (),
    "predictions": ("status",),
    "products": ("brand_id", "category", "state"),
    "shootings": ("brand_id", "phase", "archived"),
    "shots": ("status", "shot_type_id"),
}
KEY = ("table_name", "column_name", "value", "scope_id", "entry")
WAITING = sa.text("entry > 0")
OF_MY_SCOPES = f"(scope_id = ANY ((SELECT sartiq_organizations())::uuid[]) OR scope_id = {USER_ID})"


def upgrade() -> None:
    op.create_table(
        "row_counts",
        sa.Column("table_name", sa.String(40), nullable=False),
        sa.Column("column_name", sa.String(40), nullable=False),
        sa.Column("value", sa.String(120), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("entry", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*KEY, name=op.f("pk_row_counts")),
    )
    op.create_index("ix_row_counts_waiting", "row_counts", ["entry"], postgresql_where=WAITING)
    # Triggers write counts under the system role; callers read the counts of their tenants.
    enable_rls("row_counts", NONE, readable=OF_MY_SCOPES)
    op.execute(f"REVOKE INSERT, UPDATE, DELETE ON row_counts FROM {APPLICATION_ROLE}")
    for table, columns in KEPT.items():
        create_count_triggers(table, *columns)


def downgrade() -> None:
    for table in KEPT:
        drop_count_triggers(table)
    disable_rls("row_counts")
    op.drop_table("row_counts")
