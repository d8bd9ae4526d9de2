"""Add an index for every sort order and filter of the lists of growing tables."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

OWNED = (
    "background_presets", "brands", "exports", "generations", "guidelines", "looks", "media_resources",
    "predictions", "product_images", "products", "resolution_presets", "shootings", "shot_types", "shots",
    "styles", "subject_base_images", "subjects", "uploads", "webhook_endpoints",
)  # fmt: skip
# The columns by which the lists of a table are filtered.
LISTED = {
    "brands": (),
    "exports": ("status",),
    "generations": ("status", "generation_strategy"),
    "guidelines": (),
    "predictions": ("status",),
    "products": ("brand_id", "category", "state"),
    "shootings": ("brand_id", "phase", "archived"),
    "shots": ("status", "shot_type_id"),
}
NAMED = {"brands", "guidelines", "products", "shootings"}
PERSONAL = sa.text("organization_id IS NULL")


def upgrade() -> None:
    for table in OWNED:
        _index_owner(table, "owner_id", "organization_id", "created_at", "id")
    for table in LISTED:
        for name, columns in _indexes(table):
            is_personal = columns[0] == "owner_id"
            where = {"postgresql_where": PERSONAL} if is_personal else {}
            op.create_index(name, table, columns, **where)


def downgrade() -> None:
    for table in LISTED:
        for name, _ in _indexes(table):
            op.drop_index(name, table)
    for table in OWNED:
        _index_owner(table, "owner_id", "created_at", "id")


def _index_owner(table: str, *columns: str) -> None:
    op.drop_index(f"ix_{table}_owner", table)
    op.create_index(f"ix_{table}_owner", table, columns)


def _indexes(table: str) -> list[tuple[str, list[str]]]:
    """Return the name and columns of each new index; those that begin with the owner are partial."""
    others = ["updated_at", *(["name"] if table in NAMED else [])]
    return [
        (f"ix_{table}_created_at", ["created_at", "id"]),
        *((f"ix_{table}_organization_{order}", ["organization_id", order, "id"]) for order in others),
        *((f"ix_{table}_owner_{order}", ["owner_id", order, "id"]) for order in others),
        *(
            (f"ix_{table}_{column}_{order}", ["organization_id", column, order, "id"])
            for column in LISTED[table]
            for order in ("created_at", *others)
        ),
    ]
