"""Add the images of product imports as a queue, with their ZIP files and counts."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import deny_all, disable_rls

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

IMPORTS, IMAGES = "product_imports", "product_import_images"
COUNTS = ("image_count", "image_added_count", "image_unchanged_count", "image_failed_count")
IS_RUNNING = sa.text("status = 'running'")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for name in COUNTS:
        op.add_column(IMPORTS, sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column(IMPORTS, sa.Column("images_upload_id", sa.Uuid(), nullable=True))
    op.add_column(IMPORTS, sa.Column("images_file_id", sa.Uuid(), nullable=True))
    op.add_column(IMPORTS, sa.Column("images_file_hash", sa.String(64), nullable=True))
    op.add_column(IMPORTS, sa.Column("rows_completed_at", TIME, nullable=True))
    op.create_index(op.f(f"ix_{IMPORTS}_images_upload_id"), IMPORTS, ["images_upload_id"])
    op.add_column("product_import_results", sa.Column("image_problems", sa.JSON(), nullable=True))
    op.add_column("product_images", sa.Column("source_hash", sa.String(64), nullable=True))
    _create_images()
    deny_all(IMAGES)


def downgrade() -> None:
    disable_rls(IMAGES)
    op.drop_table(IMAGES)
    op.drop_column("product_images", "source_hash")
    op.drop_column("product_import_results", "image_problems")
    op.drop_index(op.f(f"ix_{IMPORTS}_images_upload_id"), IMPORTS)
    # An import that waits for its images has processed its rows. Without the column, it would start again.
    op.execute(
        f"UPDATE {IMPORTS} SET status = 'completed', completed_at = rows_completed_at "  # noqa: S608 - a name
        "WHERE status = 'running' AND rows_completed_at IS NOT NULL"
    )
    for name in (*COUNTS, "images_upload_id", "images_file_id", "images_file_hash", "rows_completed_at"):
        op.drop_column(IMPORTS, name)


def _create_images() -> None:
    op.create_table(
        IMAGES,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=True),
        sa.Column("source", sa.String(2048), nullable=False),
        sa.Column("host", sa.String(255), nullable=True),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("alt_text", sa.String(500), nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", TIME, nullable=False),
        sa.Column("lease_owner", sa.String(100), nullable=True),
        sa.Column("lease_expires_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"], [f"{IMPORTS}.id"], name=op.f(f"fk_{IMAGES}_import_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{IMAGES}")),
    )
    op.create_index(f"ix_{IMAGES}_queue", IMAGES, ["import_id", "status", "available_at", "id"])
    op.create_index(f"uq_{IMAGES}_row", IMAGES, ["import_id", "line", "ordinal"], unique=True)
    op.create_index(f"ix_{IMAGES}_running", IMAGES, ["host"], postgresql_where=IS_RUNNING)
