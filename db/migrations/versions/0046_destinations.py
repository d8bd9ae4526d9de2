"""Add the destinations of exports, and the log of their deliveries."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.change_feed import create_reference_triggers, drop_reference_triggers
from db.migrations.frozen.policies import disable_rls, enable_rls, parent_is_visible

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

COLUMNS = {
    "delivery_status": sa.String(20),
    "delivery_next_attempt_at": sa.DateTime(timezone=True),
    "delivery_error": sa.String(30),
    "delivery_ended_at": sa.DateTime(timezone=True),
    "leased_at": sa.DateTime(timezone=True),
}


def upgrade() -> None:
    op.create_table(
        "destinations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("region", sa.String(64), nullable=True),
        sa.Column("bucket", sa.String(63), nullable=True),
        sa.Column("prefix", sa.String(500), nullable=True),
        sa.Column("path_style", sa.Boolean(), nullable=True),
        sa.Column("access_key_hint", sa.String(4), nullable=True),
        sa.Column("header_name", sa.String(64), nullable=True),
        sa.Column("credentials", sa.LargeBinary(), nullable=True),
        sa.Column("credentials_key", sa.String(16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{parent}.id"], name=op.f(f"fk_destinations_{column}"), ondelete="RESTRICT"
            )
            for column, parent in (("owner_id", "users"), ("organization_id", "organizations"))
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_destinations")),
    )
    op.create_index(
        "ix_destinations_owner", "destinations", ["owner_id", "organization_id", "created_at", "id"]
    )
    op.create_index("ix_destinations_organization", "destinations", ["organization_id", "created_at", "id"])
    op.create_index("ix_destinations_credentials_key", "destinations", ["credentials_key"])
    enable_rls("destinations")
    _add_columns_of_exports()
    op.create_table(
        "export_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("export_id", sa.Uuid(), nullable=False),
        sa.Column("file_name", sa.String(200), nullable=False),
        sa.Column("file_size", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_status_code", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(30), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["export_id"], ["exports.id"], name=op.f("fk_export_deliveries_export_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_export_deliveries")),
    )
    op.create_index("ix_export_deliveries_export", "export_deliveries", ["export_id", "created_at", "id"])
    enable_rls("export_deliveries", parent_is_visible("exports", "export_id"))


def _add_columns_of_exports() -> None:
    op.add_column("exports", sa.Column("destination_id", sa.Uuid(), nullable=True))
    op.add_column("exports", sa.Column("delivery_attempts", sa.Integer(), nullable=False, server_default="0"))
    for name, column_type in COLUMNS.items():
        op.add_column("exports", sa.Column(name, column_type, nullable=True))
    op.create_foreign_key(
        op.f("fk_exports_destination_id"),
        "exports",
        "destinations",
        ["destination_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index(op.f("ix_exports_destination_id"), "exports", ["destination_id"])
    op.create_index(op.f("ix_exports_leased_at"), "exports", ["leased_at"])
    op.create_index(
        "ix_exports_delivery_queue", "exports", ["delivery_status", "delivery_next_attempt_at", "id"]
    )
    create_reference_triggers("exports", ["destination_id"])


def downgrade() -> None:
    disable_rls("export_deliveries")
    op.drop_table("export_deliveries")
    drop_reference_triggers("exports")
    for name in ("delivery_queue", "leased_at", "destination_id"):
        op.drop_index(f"ix_exports_{name}", "exports")
    op.drop_constraint("fk_exports_destination_id", "exports", type_="foreignkey")
    for name in (*COLUMNS, "delivery_attempts", "destination_id"):
        op.drop_column("exports", name)
    disable_rls("destinations")
    op.drop_table("destinations")
