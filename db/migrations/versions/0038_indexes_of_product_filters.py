"""Index lists by due date and SKU, generations by product and exported predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

PERSONAL = sa.text("organization_id IS NULL")
# The new sort order of each table, what it sorts by, and the columns by which the lists are filtered.
ORDERS = {
    "products": (
        "sku",
        sa.text("(CASE WHEN sku IS NULL THEN '' ELSE sku END)"),
        ("brand_id", "category", "state"),
    ),
    "shootings": ("due_date", "due_date", ("brand_id", "phase", "archived")),
}


def upgrade() -> None:
    for table, (name, key, columns) in ORDERS.items():
        op.create_index(f"ix_{table}_organization_{name}", table, ["organization_id", key, "id"])
        op.create_index(f"ix_{table}_owner_{name}", table, ["owner_id", key, "id"], postgresql_where=PERSONAL)
        for column in columns:
            op.create_index(f"ix_{table}_{column}_{name}", table, ["organization_id", column, key, "id"])
    op.create_index("ix_generations_product", "generations", ["product_id", "created_at", "id"])
    op.create_index("ix_export_items_prediction_id", "export_items", ["prediction_id"])


def downgrade() -> None:
    op.drop_index("ix_export_items_prediction_id", "export_items")
    op.drop_index("ix_generations_product", "generations")
    for table, (name, _, columns) in ORDERS.items():
        for column in ("organization", "owner", *columns):
            op.drop_index(f"ix_{table}_{column}_{name}", table)
