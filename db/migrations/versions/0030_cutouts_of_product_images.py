"""Add region, mask, alternative text and position to product images, and the table of their cut-outs."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import (
    OWNED,
    PUBLIC,
    create_reference_check,
    disable_rls,
    drop_reference_check,
    enable_rls,
    is_referenced,
    parent_is_visible,
)

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

TABLE = "product_image_cutouts"
IMAGES_BEFORE = [
    ("background_presets", "image_media_id"),
    ("product_images", "media_id"),
    ("products", "cover_media_id"),
    ("styles", "cover_media_id"),
    ("subject_base_images", "media_id"),
    ("subjects", "cover_media_id"),
    ("brands", "logo_media_id"),
    ("organizations", "logo_media_id"),
]
IMAGES = [*IMAGES_BEFORE, ("product_images", "mask_media_id"), (TABLE, "media_id")]
NUMBER_IMAGES = """
    UPDATE product_images SET position = (
        SELECT count(*) FROM product_images AS other
        WHERE other.product_id = product_images.product_id AND other.id <= product_images.id
    )
"""
# Workers make them when no newer photo waits. The hash is that of a photo without region and mask, as
# `studio.cutouts.requests.hash_inputs` returns it.
REQUEST_CUTOUTS = f"""
    INSERT INTO {TABLE} (
        id, owner_id, organization_id, product_image_id, input_hash, status, attempts, warnings, facts,
        requested_at, created_at, updated_at
    )
    SELECT
        gen_random_uuid(), owner_id, organization_id, id,
        encode(sha256(convert_to(format('["%s", null, null]', media_id), 'UTF8')), 'hex'),
        'pending', 0, '[]', '{{}}', created_at, now(), now()
    FROM product_images
"""  # noqa: S608 - the name comes from this module


def upgrade() -> None:
    op.add_column("product_images", sa.Column("position", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("product_images", sa.Column("alt_text", sa.String(500), nullable=True))
    op.add_column("product_images", sa.Column("region", sa.JSON(), nullable=True))
    op.add_column("product_images", sa.Column("mask_media_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_product_images_mask_media_id"),
        "product_images",
        "media_resources",
        ["mask_media_id"],
        ["id"],
        ondelete="RESTRICT",
    )
    op.create_index(op.f("ix_product_images_mask_media_id"), "product_images", ["mask_media_id"])
    op.alter_column("product_images", "position", server_default=None)
    op.execute(NUMBER_IMAGES)
    _create_table()
    op.execute(REQUEST_CUTOUTS)
    enable_rls(TABLE, OWNED, readable=parent_is_visible("product_images", "product_image_id"))
    _protect_media(IMAGES)


def downgrade() -> None:
    _protect_media(IMAGES_BEFORE)
    disable_rls(TABLE)
    op.drop_table(TABLE)
    op.drop_index(op.f("ix_product_images_mask_media_id"), "product_images")
    op.drop_constraint(op.f("fk_product_images_mask_media_id"), "product_images", type_="foreignkey")
    for column in ("mask_media_id", "region", "alt_text", "position"):
        op.drop_column("product_images", column)


def _create_table() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("product_image_id", sa.Uuid(), nullable=False),
        sa.Column("input_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leased_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.String(100), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("media_id", sa.Uuid(), nullable=True),
        sa.Column("method", sa.String(40), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("renderer_version", sa.String(40), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{parent}.id"], name=op.f(f"fk_{TABLE}_{column}"), ondelete=rule
            )
            for column, parent, rule in (
                ("owner_id", "users", "RESTRICT"),
                ("organization_id", "organizations", "RESTRICT"),
                ("product_image_id", "product_images", "CASCADE"),
                ("media_id", "media_resources", "RESTRICT"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
        sa.UniqueConstraint("product_image_id", name=op.f(f"uq_{TABLE}_product_image_id")),
    )
    op.create_index(f"ix_{TABLE}_owner", TABLE, ["owner_id", "organization_id", "created_at", "id"])
    op.create_index(f"ix_{TABLE}_organization", TABLE, ["organization_id", "created_at", "id"])
    op.create_index(f"ix_{TABLE}_queue", TABLE, ["status", "requested_at", "id"])
    op.create_index(op.f(f"ix_{TABLE}_leased_at"), TABLE, ["leased_at"])
    op.create_index(op.f(f"ix_{TABLE}_media_id"), TABLE, ["media_id"])


def _protect_media(references: list[tuple[str, str]]) -> None:
    disable_rls("media_resources")
    drop_reference_check("media_resources")
    create_reference_check("media_resources", references)
    enable_rls("media_resources", OWNED, readable=f"{PUBLIC} OR {is_referenced('media_resources')}")
