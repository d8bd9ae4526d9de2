"""Add the client's own keys to products, shootings, looks and shots: an external id and metadata."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

TABLES = ("products", "shootings", "looks", "shots")
# Without the rows that have none, which then cost nothing to insert.
IS_GIVEN = "external_id IS NOT NULL"
CONDITIONS = {
    "organization": sa.text(IS_GIVEN),
    "owner": sa.text(f"organization_id IS NULL AND {IS_GIVEN}"),
}


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("external_id", sa.String(128), nullable=True))
        # With a default, PostgreSQL does not rewrite the table, and no trigger fires.
        op.add_column(table, sa.Column("metadata", sa.JSON(), nullable=False, server_default="{}"))
        for scope, condition in CONDITIONS.items():
            op.create_index(
                f"uq_{table}_{scope}_external_id",
                table,
                [f"{scope}_id", "external_id"],
                unique=True,
                postgresql_where=condition,
            )


def downgrade() -> None:
    for table in TABLES:
        for scope in CONDITIONS:
            op.drop_index(f"uq_{table}_{scope}_external_id", table)
        for column in ("metadata", "external_id"):
            op.drop_column(table, column)
