"""Add the imports of products with the results of their rows, and uploads that are no images."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import disable_rls, enable_rls, parent_is_visible
from db.migrations.frozen.row_counts import create_count_triggers, drop_count_triggers

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

IMPORTS, RESULTS = "product_imports", "product_import_results"
IS_PERSONAL = sa.text("organization_id IS NULL")
IS_RUNNING = sa.text("status = 'running'")
IS_RUNNING_OF_OWNER = sa.text("status = 'running' AND organization_id IS NULL")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("uploads", sa.Column("file_id", sa.Uuid(), nullable=True))
    op.add_column("uploads", sa.Column("file_hash", sa.String(64), nullable=True))
    _create_imports()
    _create_results()
    enable_rls(IMPORTS)
    enable_rls(RESULTS, parent_is_visible(IMPORTS, "import_id"))
    create_count_triggers(IMPORTS, "status")


def downgrade() -> None:
    drop_count_triggers(IMPORTS)
    for table in (RESULTS, IMPORTS):
        disable_rls(table)
        op.drop_table(table)
    # The files of these uploads stay in the storage until garbage collection deletes them.
    op.execute("DELETE FROM uploads WHERE file_id IS NOT NULL")
    op.drop_column("uploads", "file_hash")
    op.drop_column("uploads", "file_id")


def _create_imports() -> None:
    op.create_table(
        IMPORTS,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("file_hash", sa.String(64), nullable=False),
        sa.Column("format", sa.String(10), nullable=False),
        sa.Column("mode", sa.String(10), nullable=False),
        sa.Column("match_by", sa.String(20), nullable=False),
        sa.Column("column_mapping", sa.JSON(), nullable=False),
        sa.Column("empty_cells", sa.String(10), nullable=False),
        sa.Column("validate_only", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("next_line", sa.Integer(), nullable=False),
        sa.Column("total_count", sa.Integer(), nullable=True),
        *(
            sa.Column(f"{name}_count", sa.Integer(), nullable=False)
            for name in ("created", "updated", "unchanged", "failed")
        ),
        sa.Column("problem", sa.JSON(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("leased_at", TIME, nullable=True),
        sa.Column("lease_owner", sa.String(100), nullable=True),
        sa.Column("lease_expires_at", TIME, nullable=True),
        sa.Column("completed_at", TIME, nullable=True),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{parent}.id"], name=op.f(f"fk_{IMPORTS}_{column}"), ondelete=rule
            )
            for column, parent, rule in (
                ("owner_id", "users", "RESTRICT"),
                ("organization_id", "organizations", "CASCADE"),
                ("upload_id", "uploads", "CASCADE"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{IMPORTS}")),
    )
    for name, columns in (
        ("owner", ["owner_id", "organization_id", "created_at", "id"]),
        ("organization", ["organization_id", "created_at", "id"]),
        ("created_at", ["created_at", "id"]),
        ("organization_updated_at", ["organization_id", "updated_at", "id"]),
        ("status_created_at", ["organization_id", "status", "created_at", "id"]),
        ("status_updated_at", ["organization_id", "status", "updated_at", "id"]),
        ("queue", ["status", "created_at", "id"]),
    ):
        op.create_index(f"ix_{IMPORTS}_{name}", IMPORTS, columns)
    for column in ("upload_id", "leased_at", "expires_at"):
        op.create_index(op.f(f"ix_{IMPORTS}_{column}"), IMPORTS, [column])
    op.create_index(
        f"ix_{IMPORTS}_owner_updated_at",
        IMPORTS,
        ["owner_id", "updated_at", "id"],
        postgresql_where=IS_PERSONAL,
    )
    for name, column, condition in (
        ("running", "organization_id", IS_RUNNING),
        ("running_owner", "owner_id", IS_RUNNING_OF_OWNER),
    ):
        op.create_index(f"uq_{IMPORTS}_{name}", IMPORTS, [column], unique=True, postgresql_where=condition)


def _create_results() -> None:
    op.create_table(
        RESULTS,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("external_id", sa.String(128), nullable=True),
        sa.Column("sku", sa.String(80), nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=True),
        sa.Column("problem", sa.JSON(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"], [f"{IMPORTS}.id"], name=op.f(f"fk_{RESULTS}_import_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{RESULTS}")),
    )
    op.create_index(f"ix_{RESULTS}_import", RESULTS, ["import_id", "created_at", "id"])
    op.create_index(f"ix_{RESULTS}_status", RESULTS, ["import_id", "status", "created_at", "id"])
