"""Add the change feed, and the triggers that write it and move `updated_at` with counts and statuses.

Existing rows are not in the feed.
"""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.change_feed import (
    create_change_triggers,
    create_reference_triggers,
    create_touch_function,
    create_touch_triggers,
    drop_change_triggers,
    drop_reference_triggers,
    drop_touch_function,
    drop_touch_triggers,
)
from db.migrations.frozen.policies import APPLICATION_ROLE, NONE, OWNED, deny_all, disable_rls, enable_rls

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

RESOURCE_TYPES = {
    "background_presets": "background_preset",
    "brands": "brand",
    "exports": "export",
    "generations": "generation",
    "guidelines": "guidelines",
    "looks": "look",
    "prediction_comments": "prediction_comment",
    "predictions": "prediction",
    "product_images": "product_image",
    "product_imports": "product_import",
    "products": "product",
    "resolution_presets": "resolution_preset",
    "shootings": "shooting",
    "shot_types": "shot_type",
    "shots": "shot",
    "styles": "style",
    "subject_base_images": "base_image",
    "subjects": "subject",
}
# A shooting shows the counts of its looks and shots, a look the status of its shots, a generation its
# predictions, and a shot their number. Code that adds shots to a look or removes them, or adds
# predictions to a generation, changes the look, or the generation and its shot, in the same transaction.
TOUCHES: dict[str, dict[str, dict[str, str]]] = {
    "looks": {"insert": {"shooting_id": "shootings"}, "delete": {"shooting_id": "shootings"}},
    "shots": {
        "insert": {"shooting_id": "shootings"},
        "update": {"look_id": "looks", "shooting_id": "shootings"},
        "delete": {"shooting_id": "shootings"},
    },
    "predictions": {
        "update": {"generation_id": "generations"},
        "delete": {"generation_id": "generations", "shot_id": "shots"},
    },
}
WATCHED = {"looks": ["updated_at"], "shots": ["status", "external_id"], "predictions": ["updated_at"]}
HAVE_EXTERNAL_IDS = ("looks", "products", "shootings", "shots")
REFERENCES = {
    "generations": ["source_prediction_id", "retry_of_id"],
    "prediction_comments": ["author_id"],
    "predictions": ["reviewed_by"],
    "products": ["brand_id"],
    "shootings": ["brand_id"],
    "shots": ["approved_prediction_id", "generation_id"],
}
PARENTS = ("generations", "looks", "shootings", "shots")
INDEXES = (
    ("ix_changes_organization", "organization_id", sa.text("organization_id IS NOT NULL")),
    ("ix_changes_owner", "owner_id", sa.text("organization_id IS NULL")),
)


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("sequence", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("xid", sa.BigInteger(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("resource_type", sa.String(40), nullable=False),
        sa.Column("resource_id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.String(128), nullable=True),
        sa.Column("change", sa.String(10), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_changes")),
    )
    for name, column, condition in INDEXES:
        op.create_index(name, "changes", [column, "xid", "sequence"], postgresql_where=condition)
    op.create_table(
        "pending_touches",
        sa.Column("entry", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("table_name", sa.String(40), nullable=False),
        sa.Column("row_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_pending_touches")),
    )
    # Triggers write both tables under the system role; callers read the changes of their tenants.
    enable_rls("changes", NONE, readable=OWNED, privileges="SELECT, INSERT, DELETE")
    op.execute(f"REVOKE INSERT, DELETE ON changes FROM {APPLICATION_ROLE}")
    deny_all("pending_touches")
    for table, columns in REFERENCES.items():
        create_reference_triggers(table, columns)
    for parent in PARENTS:
        create_touch_function(parent)
    for table, parents in TOUCHES.items():
        create_touch_triggers(table, WATCHED[table], **parents)
    for table, resource_type in RESOURCE_TYPES.items():
        create_change_triggers(table, resource_type, table in HAVE_EXTERNAL_IDS)


def downgrade() -> None:
    for table in RESOURCE_TYPES:
        drop_change_triggers(table)
    for table, parents in TOUCHES.items():
        drop_touch_triggers(table, *parents)
    for parent in PARENTS:
        drop_touch_function(parent)
    for table in REFERENCES:
        drop_reference_triggers(table)
    for table in ("pending_touches", "changes"):
        disable_rls(table)
        op.drop_table(table)
