"""Create the first schema.

A migration never changes, so it repeats the definitions of the models instead of importing them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON()

# Circular references: table, column, referenced table. Both tables must exist first.
CIRCULAR_KEYS = (
    ("organizations", "logo_media_id", "media_resources"),
    ("shots", "approved_prediction_id", "predictions"),
    ("shots", "generation_id", "generations"),
    ("generations", "source_prediction_id", "predictions"),
)


def upgrade() -> None:
    op.create_table(
        "generation_models",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("icon", sa.String(length=200), nullable=True),
        sa.Column("provider", sa.String(length=40), nullable=False),
        sa.Column("provider_config", JSON, nullable=True),
        sa.Column("provider_capabilities", JSON, nullable=True),
        sa.Column("fallback_provider", sa.String(length=40), nullable=True),
        sa.Column("fallback_provider_config", JSON, nullable=True),
        sa.Column("fallback_provider_capabilities", JSON, nullable=True),
        sa.Column("tool_types", JSON, nullable=False),
        sa.Column("recommended", sa.Boolean(), nullable=False),
        sa.Column("beta", sa.Boolean(), nullable=False),
        sa.Column("max_output_width", sa.Integer(), nullable=True),
        sa.Column("max_output_height", sa.Integer(), nullable=True),
        sa.Column("max_size_pixels", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generation_models")),
    )
    op.create_table(
        "organizations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("slug", sa.String(length=120), nullable=False),
        sa.Column("logo_media_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["logo_media_id"],
            ["media_resources.id"],
            name=op.f("fk_organizations_logo_media_id"),
            ondelete="SET NULL",
            use_alter=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
        sa.UniqueConstraint("slug", name=op.f("uq_organizations_slug")),
    )
    op.create_index(op.f("ix_organizations_logo_media_id"), "organizations", ["logo_media_id"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("email_key", sa.String(length=640), nullable=False),
        sa.Column("hashed_password", sa.String(length=255), nullable=False),
        sa.Column("full_name", sa.String(length=200), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("is_superuser", sa.Boolean(), nullable=False),
        sa.Column("rework_available", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email_key", name=op.f("uq_users_email_key")),
    )
    op.create_table(
        "media_resources",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("extension", sa.String(length=8), nullable=False),
        sa.Column("content_type", sa.String(length=100), nullable=False),
        sa.Column("file_size", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("has_alpha", sa.Boolean(), nullable=False),
        sa.Column("dominant_color", sa.String(length=7), nullable=True),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_media_resources_organization_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_media_resources_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media_resources")),
    )
    op.create_index(
        "ix_media_resources_organization",
        "media_resources",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_media_resources_owner", "media_resources", ["owner_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_media_resources_public"), "media_resources", ["public"], unique=False)
    op.create_index(
        "uq_media_resources_organization_content_hash",
        "media_resources",
        ["organization_id", "content_hash"],
        unique=True,
    )
    op.create_index(
        "uq_media_resources_owner_content_hash",
        "media_resources",
        ["owner_id", "content_hash"],
        unique=True,
        postgresql_where=sa.text("organization_id IS NULL"),
    )
    op.create_table(
        "memberships",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_memberships_organization_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_memberships_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memberships")),
        sa.UniqueConstraint(
            "organization_id", "user_id", name=op.f("uq_memberships_organization_id_user_id")
        ),
    )
    op.create_index(op.f("ix_memberships_user_id"), "memberships", ["user_id"], unique=False)
    op.create_index(
        "uq_memberships_one_owner",
        "memberships",
        ["organization_id"],
        unique=True,
        postgresql_where=sa.text("role = 'owner'"),
    )
    op.create_table(
        "password_reset_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.String(length=128), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_password_reset_tokens_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_password_reset_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_password_reset_tokens_token_hash")),
    )
    op.create_index(
        op.f("ix_password_reset_tokens_user_id"), "password_reset_tokens", ["user_id"], unique=False
    )
    op.create_table(
        "resolution_presets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_resolution_presets_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_resolution_presets_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resolution_presets")),
    )
    op.create_index(
        "ix_resolution_presets_organization",
        "resolution_presets",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_resolution_presets_owner", "resolution_presets", ["owner_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_resolution_presets_public"), "resolution_presets", ["public"], unique=False)
    op.create_table(
        "shot_types",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("slug", sa.String(length=120), nullable=False),
        sa.Column("label", sa.String(length=120), nullable=False),
        sa.Column("description", sa.String(length=2000), nullable=True),
        sa.Column("framing", sa.String(length=20), nullable=False),
        sa.Column("view_angle", sa.String(length=20), nullable=False),
        sa.Column("default_padding_percent", sa.Integer(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_shot_types_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_shot_types_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shot_types")),
    )
    op.create_index(
        "ix_shot_types_organization", "shot_types", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_shot_types_owner", "shot_types", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_shot_types_public"), "shot_types", ["public"], unique=False)
    op.create_index("uq_shot_types_organization_slug", "shot_types", ["organization_id", "slug"], unique=True)
    op.create_index(
        "uq_shot_types_owner_slug",
        "shot_types",
        ["owner_id", "slug"],
        unique=True,
        postgresql_where=sa.text("organization_id IS NULL"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("service_type", sa.String(length=20), nullable=False),
        sa.Column("tier", sa.String(length=20), nullable=False),
        sa.Column("payment_id", sa.String(length=200), nullable=True),
        sa.Column("start_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("grace_period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("credits_total", sa.Integer(), nullable=False),
        sa.Column("credits_used", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("payment_status", sa.String(length=20), nullable=False),
        sa.Column("base_price_minor", sa.Integer(), nullable=False),
        sa.Column("actual_price_minor", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_subscriptions_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
    )
    op.create_index(op.f("ix_subscriptions_user_id"), "subscriptions", ["user_id"], unique=False)
    op.create_index(
        "uq_subscriptions_one_active",
        "subscriptions",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text("is_active"),
    )
    op.create_table(
        "token_families",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("user_agent", sa.String(length=400), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_token_families_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_families")),
    )
    op.create_index(op.f("ix_token_families_expires_at"), "token_families", ["expires_at"], unique=False)
    op.create_index(op.f("ix_token_families_user_id"), "token_families", ["user_id"], unique=False)
    op.create_table(
        "background_presets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("color", sa.String(length=7), nullable=True),
        sa.Column("color_end", sa.String(length=7), nullable=True),
        sa.Column("image_media_id", sa.Uuid(), nullable=True),
        sa.Column("shadow", sa.String(length=20), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_media_id"],
            ["media_resources.id"],
            name=op.f("fk_background_presets_image_media_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_background_presets_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_background_presets_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_background_presets")),
    )
    op.create_index(
        op.f("ix_background_presets_image_media_id"), "background_presets", ["image_media_id"], unique=False
    )
    op.create_index(
        "ix_background_presets_organization",
        "background_presets",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_background_presets_owner", "background_presets", ["owner_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_background_presets_public"), "background_presets", ["public"], unique=False)
    op.create_table(
        "refresh_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.String(length=128), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["family_id"], ["token_families.id"], name=op.f("fk_refresh_tokens_family_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refresh_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_refresh_tokens_token_hash")),
    )
    op.create_index(op.f("ix_refresh_tokens_family_id"), "refresh_tokens", ["family_id"], unique=False)
    op.create_table(
        "styles",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("slug", sa.String(length=120), nullable=False),
        sa.Column("description", sa.String(length=2000), nullable=True),
        sa.Column("prompt", sa.String(length=4000), nullable=True),
        sa.Column("tone", sa.String(length=200), nullable=True),
        sa.Column("lighting", sa.String(length=200), nullable=True),
        sa.Column("contrast", sa.Integer(), nullable=False),
        sa.Column("saturation", sa.Integer(), nullable=False),
        sa.Column("temperature", sa.Integer(), nullable=False),
        sa.Column("lora_weight", sa.Double(), nullable=False),
        sa.Column("cover_media_id", sa.Uuid(), nullable=True),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["cover_media_id"],
            ["media_resources.id"],
            name=op.f("fk_styles_cover_media_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_styles_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_styles_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_styles")),
    )
    op.create_index(op.f("ix_styles_cover_media_id"), "styles", ["cover_media_id"], unique=False)
    op.create_index("ix_styles_organization", "styles", ["organization_id", "created_at", "id"], unique=False)
    op.create_index("ix_styles_owner", "styles", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_styles_public"), "styles", ["public"], unique=False)
    op.create_index("uq_styles_organization_slug", "styles", ["organization_id", "slug"], unique=True)
    op.create_index(
        "uq_styles_owner_slug",
        "styles",
        ["owner_id", "slug"],
        unique=True,
        postgresql_where=sa.text("organization_id IS NULL"),
    )
    op.create_table(
        "subjects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("surname", sa.String(length=120), nullable=True),
        sa.Column("slug", sa.String(length=120), nullable=False),
        sa.Column("description", sa.String(length=2000), nullable=True),
        sa.Column("age_class", sa.String(length=20), nullable=True),
        sa.Column("body_type", sa.String(length=80), nullable=True),
        sa.Column("gender", sa.String(length=20), nullable=True),
        sa.Column("eye_color", sa.String(length=80), nullable=True),
        sa.Column("hair_color", sa.String(length=80), nullable=True),
        sa.Column("cover_media_id", sa.Uuid(), nullable=True),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["cover_media_id"],
            ["media_resources.id"],
            name=op.f("fk_subjects_cover_media_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_subjects_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_subjects_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subjects")),
    )
    op.create_index(op.f("ix_subjects_cover_media_id"), "subjects", ["cover_media_id"], unique=False)
    op.create_index(
        "ix_subjects_organization", "subjects", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_subjects_owner", "subjects", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_subjects_public"), "subjects", ["public"], unique=False)
    op.create_index("uq_subjects_organization_slug", "subjects", ["organization_id", "slug"], unique=True)
    op.create_index(
        "uq_subjects_owner_slug",
        "subjects",
        ["owner_id", "slug"],
        unique=True,
        postgresql_where=sa.text("organization_id IS NULL"),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("content_type", sa.String(length=100), nullable=False),
        sa.Column("size", sa.Integer(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("media_resource_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["media_resource_id"],
            ["media_resources.id"],
            name=op.f("fk_uploads_media_resource_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_uploads_organization_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_uploads_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"], unique=False)
    op.create_index(op.f("ix_uploads_media_resource_id"), "uploads", ["media_resource_id"], unique=False)
    op.create_index(
        "ix_uploads_organization", "uploads", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_uploads_owner", "uploads", ["owner_id", "created_at", "id"], unique=False)
    op.create_table(
        "guidelines",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("file_format", sa.String(length=10), nullable=False),
        sa.Column("background_preset_id", sa.Uuid(), nullable=True),
        sa.Column("resolution_preset_id", sa.Uuid(), nullable=True),
        sa.Column("margin_percent", sa.Integer(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.Column("notes", sa.String(length=5000), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["background_preset_id"],
            ["background_presets.id"],
            name=op.f("fk_guidelines_background_preset_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_guidelines_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_guidelines_owner_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["resolution_preset_id"],
            ["resolution_presets.id"],
            name=op.f("fk_guidelines_resolution_preset_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guidelines")),
    )
    op.create_index(
        op.f("ix_guidelines_background_preset_id"), "guidelines", ["background_preset_id"], unique=False
    )
    op.create_index(
        "ix_guidelines_organization", "guidelines", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_guidelines_owner", "guidelines", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_guidelines_resolution_preset_id"), "guidelines", ["resolution_preset_id"], unique=False
    )
    op.create_table(
        "subject_base_images",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("shot_type_id", sa.Uuid(), nullable=False),
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["media_id"],
            ["media_resources.id"],
            name=op.f("fk_subject_base_images_media_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_subject_base_images_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_subject_base_images_owner_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["shot_type_id"],
            ["shot_types.id"],
            name=op.f("fk_subject_base_images_shot_type_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["subject_id"],
            ["subjects.id"],
            name=op.f("fk_subject_base_images_subject_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subject_base_images")),
    )
    op.create_index(
        op.f("ix_subject_base_images_media_id"), "subject_base_images", ["media_id"], unique=False
    )
    op.create_index(
        "ix_subject_base_images_organization",
        "subject_base_images",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_subject_base_images_owner", "subject_base_images", ["owner_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_subject_base_images_public"), "subject_base_images", ["public"], unique=False)
    op.create_index(
        op.f("ix_subject_base_images_shot_type_id"), "subject_base_images", ["shot_type_id"], unique=False
    )
    op.create_index(
        op.f("ix_subject_base_images_subject_id"), "subject_base_images", ["subject_id"], unique=False
    )
    op.create_table(
        "brands",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("slug", sa.String(length=120), nullable=False),
        sa.Column("description", sa.String(length=2000), nullable=True),
        sa.Column("website", sa.String(length=2048), nullable=True),
        sa.Column("logo_media_id", sa.Uuid(), nullable=True),
        sa.Column("default_guidelines_id", sa.Uuid(), nullable=True),
        sa.Column("default_style_id", sa.Uuid(), nullable=True),
        sa.Column("default_background_preset_id", sa.Uuid(), nullable=True),
        sa.Column("default_resolution_preset_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["default_background_preset_id"],
            ["background_presets.id"],
            name=op.f("fk_brands_default_background_preset_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["default_guidelines_id"],
            ["guidelines.id"],
            name=op.f("fk_brands_default_guidelines_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["default_resolution_preset_id"],
            ["resolution_presets.id"],
            name=op.f("fk_brands_default_resolution_preset_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["default_style_id"], ["styles.id"], name=op.f("fk_brands_default_style_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["logo_media_id"],
            ["media_resources.id"],
            name=op.f("fk_brands_logo_media_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_brands_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_brands_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_brands")),
    )
    op.create_index(
        op.f("ix_brands_default_background_preset_id"),
        "brands",
        ["default_background_preset_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_brands_default_guidelines_id"), "brands", ["default_guidelines_id"], unique=False
    )
    op.create_index(
        op.f("ix_brands_default_resolution_preset_id"),
        "brands",
        ["default_resolution_preset_id"],
        unique=False,
    )
    op.create_index(op.f("ix_brands_default_style_id"), "brands", ["default_style_id"], unique=False)
    op.create_index(op.f("ix_brands_logo_media_id"), "brands", ["logo_media_id"], unique=False)
    op.create_index("ix_brands_organization", "brands", ["organization_id", "created_at", "id"], unique=False)
    op.create_index("ix_brands_owner", "brands", ["owner_id", "created_at", "id"], unique=False)
    op.create_index("uq_brands_organization_slug", "brands", ["organization_id", "slug"], unique=True)
    op.create_index(
        "uq_brands_owner_slug",
        "brands",
        ["owner_id", "slug"],
        unique=True,
        postgresql_where=sa.text("organization_id IS NULL"),
    )
    op.create_table(
        "guidelines_shot_types",
        sa.Column("guidelines_id", sa.Uuid(), nullable=False),
        sa.Column("shot_type_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["guidelines_id"],
            ["guidelines.id"],
            name=op.f("fk_guidelines_shot_types_guidelines_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["shot_type_id"],
            ["shot_types.id"],
            name=op.f("fk_guidelines_shot_types_shot_type_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("guidelines_id", "shot_type_id", name=op.f("pk_guidelines_shot_types")),
    )
    op.create_index(
        op.f("ix_guidelines_shot_types_shot_type_id"), "guidelines_shot_types", ["shot_type_id"], unique=False
    )
    op.create_table(
        "guidelines_subjects",
        sa.Column("guidelines_id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["guidelines_id"],
            ["guidelines.id"],
            name=op.f("fk_guidelines_subjects_guidelines_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["subject_id"],
            ["subjects.id"],
            name=op.f("fk_guidelines_subjects_subject_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("guidelines_id", "subject_id", name=op.f("pk_guidelines_subjects")),
    )
    op.create_index(
        op.f("ix_guidelines_subjects_subject_id"), "guidelines_subjects", ["subject_id"], unique=False
    )
    op.create_table(
        "products",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("sku", sa.String(length=80), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("description", sa.String(length=5000), nullable=True),
        sa.Column("category", sa.String(length=80), nullable=True),
        sa.Column("gender", sa.String(length=20), nullable=True),
        sa.Column("materials", sa.String(length=500), nullable=True),
        sa.Column("color", sa.String(length=80), nullable=True),
        sa.Column("brand_id", sa.Uuid(), nullable=True),
        sa.Column("cover_media_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["brand_id"], ["brands.id"], name=op.f("fk_products_brand_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["cover_media_id"],
            ["media_resources.id"],
            name=op.f("fk_products_cover_media_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_products_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_products_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
    )
    op.create_index(op.f("ix_products_brand_id"), "products", ["brand_id"], unique=False)
    op.create_index(op.f("ix_products_cover_media_id"), "products", ["cover_media_id"], unique=False)
    op.create_index(
        "ix_products_organization", "products", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_products_owner", "products", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_products_public"), "products", ["public"], unique=False)
    op.create_index("uq_products_organization_sku", "products", ["organization_id", "sku"], unique=True)
    op.create_index(
        "uq_products_owner_sku",
        "products",
        ["owner_id", "sku"],
        unique=True,
        postgresql_where=sa.text("organization_id IS NULL"),
    )
    op.create_table(
        "shootings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("description", sa.String(length=5000), nullable=True),
        sa.Column("due_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("season", sa.String(length=80), nullable=True),
        sa.Column("collection", sa.String(length=120), nullable=True),
        sa.Column("brand", sa.String(length=120), nullable=True),
        sa.Column("brand_id", sa.Uuid(), nullable=True),
        sa.Column("default_guidelines_id", sa.Uuid(), nullable=True),
        sa.Column("phase", sa.String(length=30), nullable=False),
        sa.Column("require_test_shooting", sa.Boolean(), nullable=False),
        sa.Column("test_shooting_held", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["brand_id"], ["brands.id"], name=op.f("fk_shootings_brand_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["default_guidelines_id"],
            ["guidelines.id"],
            name=op.f("fk_shootings_default_guidelines_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_shootings_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_shootings_owner_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shootings")),
    )
    op.create_index(op.f("ix_shootings_brand_id"), "shootings", ["brand_id"], unique=False)
    op.create_index(
        op.f("ix_shootings_default_guidelines_id"), "shootings", ["default_guidelines_id"], unique=False
    )
    op.create_index(
        "ix_shootings_organization", "shootings", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_shootings_owner", "shootings", ["owner_id", "created_at", "id"], unique=False)
    op.create_table(
        "looks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("shooting_id", sa.Uuid(), nullable=False),
        sa.Column("main_product_id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=True),
        sa.Column("style_id", sa.Uuid(), nullable=True),
        sa.Column("notes", sa.String(length=5000), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["main_product_id"], ["products.id"], name=op.f("fk_looks_main_product_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_looks_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_looks_owner_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["shooting_id"], ["shootings.id"], name=op.f("fk_looks_shooting_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["style_id"], ["styles.id"], name=op.f("fk_looks_style_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["subject_id"], ["subjects.id"], name=op.f("fk_looks_subject_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_looks")),
    )
    op.create_index(op.f("ix_looks_main_product_id"), "looks", ["main_product_id"], unique=False)
    op.create_index("ix_looks_organization", "looks", ["organization_id", "created_at", "id"], unique=False)
    op.create_index("ix_looks_owner", "looks", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_looks_shooting_id"), "looks", ["shooting_id"], unique=False)
    op.create_index(op.f("ix_looks_style_id"), "looks", ["style_id"], unique=False)
    op.create_index(op.f("ix_looks_subject_id"), "looks", ["subject_id"], unique=False)
    op.create_table(
        "product_images",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["media_id"], ["media_resources.id"], name=op.f("fk_product_images_media_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_product_images_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_product_images_owner_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name=op.f("fk_product_images_product_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_product_images")),
    )
    op.create_index(op.f("ix_product_images_media_id"), "product_images", ["media_id"], unique=False)
    op.create_index(
        "ix_product_images_organization",
        "product_images",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_product_images_owner", "product_images", ["owner_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_product_images_product_id"), "product_images", ["product_id"], unique=False)
    op.create_table(
        "look_guidelines",
        sa.Column("look_id", sa.Uuid(), nullable=False),
        sa.Column("guidelines_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["guidelines_id"],
            ["guidelines.id"],
            name=op.f("fk_look_guidelines_guidelines_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["look_id"], ["looks.id"], name=op.f("fk_look_guidelines_look_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("look_id", "guidelines_id", name=op.f("pk_look_guidelines")),
    )
    op.create_index(
        op.f("ix_look_guidelines_guidelines_id"), "look_guidelines", ["guidelines_id"], unique=False
    )
    op.create_table(
        "look_products",
        sa.Column("look_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["look_id"], ["looks.id"], name=op.f("fk_look_products_look_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name=op.f("fk_look_products_product_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("look_id", "product_id", name=op.f("pk_look_products")),
    )
    op.create_index(op.f("ix_look_products_product_id"), "look_products", ["product_id"], unique=False)
    op.create_table(
        "look_shot_types",
        sa.Column("look_id", sa.Uuid(), nullable=False),
        sa.Column("shot_type_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["look_id"], ["looks.id"], name=op.f("fk_look_shot_types_look_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["shot_type_id"],
            ["shot_types.id"],
            name=op.f("fk_look_shot_types_shot_type_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("look_id", "shot_type_id", name=op.f("pk_look_shot_types")),
    )
    op.create_index(
        op.f("ix_look_shot_types_shot_type_id"), "look_shot_types", ["shot_type_id"], unique=False
    )
    op.create_table(
        "shots",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("shooting_id", sa.Uuid(), nullable=False),
        sa.Column("look_id", sa.Uuid(), nullable=False),
        sa.Column("shot_type_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("approved_prediction_id", sa.Uuid(), nullable=True),
        sa.Column("generation_id", sa.Uuid(), nullable=True),
        sa.Column("rejection_reason", sa.String(length=2000), nullable=True),
        sa.Column("revision_note", sa.String(length=2000), nullable=True),
        sa.Column("notes", sa.String(length=5000), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["approved_prediction_id"],
            ["predictions.id"],
            name=op.f("fk_shots_approved_prediction_id"),
            ondelete="SET NULL",
            use_alter=True,
        ),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generations.id"],
            name=op.f("fk_shots_generation_id"),
            ondelete="SET NULL",
            use_alter=True,
        ),
        sa.ForeignKeyConstraint(["look_id"], ["looks.id"], name=op.f("fk_shots_look_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_shots_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_shots_owner_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["shooting_id"], ["shootings.id"], name=op.f("fk_shots_shooting_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["shot_type_id"], ["shot_types.id"], name=op.f("fk_shots_shot_type_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shots")),
        sa.UniqueConstraint("look_id", "shot_type_id", name=op.f("uq_shots_look_id_shot_type_id")),
    )
    op.create_index(
        op.f("ix_shots_approved_prediction_id"), "shots", ["approved_prediction_id"], unique=False
    )
    op.create_index(op.f("ix_shots_generation_id"), "shots", ["generation_id"], unique=False)
    op.create_index("ix_shots_organization", "shots", ["organization_id", "created_at", "id"], unique=False)
    op.create_index("ix_shots_owner", "shots", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_shots_shooting_id"), "shots", ["shooting_id"], unique=False)
    op.create_index(op.f("ix_shots_shot_type_id"), "shots", ["shot_type_id"], unique=False)
    op.create_table(
        "generations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("shot_id", sa.Uuid(), nullable=True),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("source_prediction_id", sa.Uuid(), nullable=True),
        sa.Column("subscription_id", sa.Uuid(), nullable=True),
        sa.Column("generation_type", sa.String(length=20), nullable=False),
        sa.Column("generation_strategy", sa.String(length=30), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("inputs", JSON, nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=100), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("cost_credits", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["generation_models.id"], name=op.f("fk_generations_model_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_generations_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_generations_owner_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["shot_id"], ["shots.id"], name=op.f("fk_generations_shot_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_prediction_id"],
            ["predictions.id"],
            name=op.f("fk_generations_source_prediction_id"),
            ondelete="SET NULL",
            use_alter=True,
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_generations_subscription_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    op.create_index("ix_generations_lease", "generations", ["status", "lease_expires_at"], unique=False)
    op.create_index(op.f("ix_generations_model_id"), "generations", ["model_id"], unique=False)
    op.create_index(
        "ix_generations_organization", "generations", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_generations_owner", "generations", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(
        "ix_generations_queue", "generations", ["status", "priority", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_generations_shot_id"), "generations", ["shot_id"], unique=False)
    op.create_index(
        op.f("ix_generations_source_prediction_id"), "generations", ["source_prediction_id"], unique=False
    )
    op.create_index(op.f("ix_generations_subscription_id"), "generations", ["subscription_id"], unique=False)
    op.create_table(
        "predictions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=True),
        sa.Column("generation_id", sa.Uuid(), nullable=False),
        sa.Column("shot_id", sa.Uuid(), nullable=True),
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("content_type", sa.String(length=100), nullable=False),
        sa.Column("file_size", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("quality", JSON, nullable=False),
        sa.Column("provenance", JSON, nullable=False),
        sa.Column("reviewed_by", sa.Uuid(), nullable=True),
        sa.Column("reviewed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("review_note", sa.String(length=2000), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generations.id"],
            name=op.f("fk_predictions_generation_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["media_id"], ["media_resources.id"], name=op.f("fk_predictions_media_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_predictions_organization_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_predictions_owner_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["reviewed_by"], ["users.id"], name=op.f("fk_predictions_reviewed_by"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["shot_id"], ["shots.id"], name=op.f("fk_predictions_shot_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
        sa.UniqueConstraint("generation_id", "index", name=op.f("uq_predictions_generation_id_index")),
    )
    op.create_index(op.f("ix_predictions_media_id"), "predictions", ["media_id"], unique=False)
    op.create_index(
        "ix_predictions_organization", "predictions", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_predictions_owner", "predictions", ["owner_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_predictions_reviewed_by"), "predictions", ["reviewed_by"], unique=False)
    op.create_index(op.f("ix_predictions_shot_id"), "predictions", ["shot_id"], unique=False)

    for table, column, other in CIRCULAR_KEYS:
        op.create_foreign_key(f"fk_{table}_{column}", table, other, [column], ["id"], ondelete="SET NULL")


def downgrade() -> None:
    for table, column, _ in CIRCULAR_KEYS:
        op.drop_constraint(f"fk_{table}_{column}", table, type_="foreignkey")
    op.drop_index(op.f("ix_predictions_shot_id"), table_name="predictions")
    op.drop_index(op.f("ix_predictions_reviewed_by"), table_name="predictions")
    op.drop_index("ix_predictions_owner", table_name="predictions")
    op.drop_index("ix_predictions_organization", table_name="predictions")
    op.drop_index(op.f("ix_predictions_media_id"), table_name="predictions")
    op.drop_table("predictions")
    op.drop_index(op.f("ix_generations_subscription_id"), table_name="generations")
    op.drop_index(op.f("ix_generations_source_prediction_id"), table_name="generations")
    op.drop_index(op.f("ix_generations_shot_id"), table_name="generations")
    op.drop_index("ix_generations_queue", table_name="generations")
    op.drop_index("ix_generations_owner", table_name="generations")
    op.drop_index("ix_generations_organization", table_name="generations")
    op.drop_index(op.f("ix_generations_model_id"), table_name="generations")
    op.drop_index("ix_generations_lease", table_name="generations")
    op.drop_table("generations")
    op.drop_index(op.f("ix_shots_shot_type_id"), table_name="shots")
    op.drop_index(op.f("ix_shots_shooting_id"), table_name="shots")
    op.drop_index("ix_shots_owner", table_name="shots")
    op.drop_index("ix_shots_organization", table_name="shots")
    op.drop_index(op.f("ix_shots_generation_id"), table_name="shots")
    op.drop_index(op.f("ix_shots_approved_prediction_id"), table_name="shots")
    op.drop_table("shots")
    op.drop_index(op.f("ix_look_shot_types_shot_type_id"), table_name="look_shot_types")
    op.drop_table("look_shot_types")
    op.drop_index(op.f("ix_look_products_product_id"), table_name="look_products")
    op.drop_table("look_products")
    op.drop_index(op.f("ix_look_guidelines_guidelines_id"), table_name="look_guidelines")
    op.drop_table("look_guidelines")
    op.drop_index(op.f("ix_product_images_product_id"), table_name="product_images")
    op.drop_index("ix_product_images_owner", table_name="product_images")
    op.drop_index("ix_product_images_organization", table_name="product_images")
    op.drop_index(op.f("ix_product_images_media_id"), table_name="product_images")
    op.drop_table("product_images")
    op.drop_index(op.f("ix_looks_subject_id"), table_name="looks")
    op.drop_index(op.f("ix_looks_style_id"), table_name="looks")
    op.drop_index(op.f("ix_looks_shooting_id"), table_name="looks")
    op.drop_index("ix_looks_owner", table_name="looks")
    op.drop_index("ix_looks_organization", table_name="looks")
    op.drop_index(op.f("ix_looks_main_product_id"), table_name="looks")
    op.drop_table("looks")
    op.drop_index("ix_shootings_owner", table_name="shootings")
    op.drop_index("ix_shootings_organization", table_name="shootings")
    op.drop_index(op.f("ix_shootings_default_guidelines_id"), table_name="shootings")
    op.drop_index(op.f("ix_shootings_brand_id"), table_name="shootings")
    op.drop_table("shootings")
    op.drop_index("uq_products_owner_sku", table_name="products")
    op.drop_index("uq_products_organization_sku", table_name="products")
    op.drop_index(op.f("ix_products_public"), table_name="products")
    op.drop_index("ix_products_owner", table_name="products")
    op.drop_index("ix_products_organization", table_name="products")
    op.drop_index(op.f("ix_products_cover_media_id"), table_name="products")
    op.drop_index(op.f("ix_products_brand_id"), table_name="products")
    op.drop_table("products")
    op.drop_index(op.f("ix_guidelines_subjects_subject_id"), table_name="guidelines_subjects")
    op.drop_table("guidelines_subjects")
    op.drop_index(op.f("ix_guidelines_shot_types_shot_type_id"), table_name="guidelines_shot_types")
    op.drop_table("guidelines_shot_types")
    op.drop_index("uq_brands_owner_slug", table_name="brands")
    op.drop_index("uq_brands_organization_slug", table_name="brands")
    op.drop_index("ix_brands_owner", table_name="brands")
    op.drop_index("ix_brands_organization", table_name="brands")
    op.drop_index(op.f("ix_brands_logo_media_id"), table_name="brands")
    op.drop_index(op.f("ix_brands_default_style_id"), table_name="brands")
    op.drop_index(op.f("ix_brands_default_resolution_preset_id"), table_name="brands")
    op.drop_index(op.f("ix_brands_default_guidelines_id"), table_name="brands")
    op.drop_index(op.f("ix_brands_default_background_preset_id"), table_name="brands")
    op.drop_table("brands")
    op.drop_index(op.f("ix_subject_base_images_subject_id"), table_name="subject_base_images")
    op.drop_index(op.f("ix_subject_base_images_shot_type_id"), table_name="subject_base_images")
    op.drop_index(op.f("ix_subject_base_images_public"), table_name="subject_base_images")
    op.drop_index("ix_subject_base_images_owner", table_name="subject_base_images")
    op.drop_index("ix_subject_base_images_organization", table_name="subject_base_images")
    op.drop_index(op.f("ix_subject_base_images_media_id"), table_name="subject_base_images")
    op.drop_table("subject_base_images")
    op.drop_index(op.f("ix_guidelines_resolution_preset_id"), table_name="guidelines")
    op.drop_index("ix_guidelines_owner", table_name="guidelines")
    op.drop_index("ix_guidelines_organization", table_name="guidelines")
    op.drop_index(op.f("ix_guidelines_background_preset_id"), table_name="guidelines")
    op.drop_table("guidelines")
    op.drop_index("ix_uploads_owner", table_name="uploads")
    op.drop_index("ix_uploads_organization", table_name="uploads")
    op.drop_index(op.f("ix_uploads_media_resource_id"), table_name="uploads")
    op.drop_index(op.f("ix_uploads_expires_at"), table_name="uploads")
    op.drop_table("uploads")
    op.drop_index("uq_subjects_owner_slug", table_name="subjects")
    op.drop_index("uq_subjects_organization_slug", table_name="subjects")
    op.drop_index(op.f("ix_subjects_public"), table_name="subjects")
    op.drop_index("ix_subjects_owner", table_name="subjects")
    op.drop_index("ix_subjects_organization", table_name="subjects")
    op.drop_index(op.f("ix_subjects_cover_media_id"), table_name="subjects")
    op.drop_table("subjects")
    op.drop_index("uq_styles_owner_slug", table_name="styles")
    op.drop_index("uq_styles_organization_slug", table_name="styles")
    op.drop_index(op.f("ix_styles_public"), table_name="styles")
    op.drop_index("ix_styles_owner", table_name="styles")
    op.drop_index("ix_styles_organization", table_name="styles")
    op.drop_index(op.f("ix_styles_cover_media_id"), table_name="styles")
    op.drop_table("styles")
    op.drop_index(op.f("ix_refresh_tokens_family_id"), table_name="refresh_tokens")
    op.drop_table("refresh_tokens")
    op.drop_index(op.f("ix_background_presets_public"), table_name="background_presets")
    op.drop_index("ix_background_presets_owner", table_name="background_presets")
    op.drop_index("ix_background_presets_organization", table_name="background_presets")
    op.drop_index(op.f("ix_background_presets_image_media_id"), table_name="background_presets")
    op.drop_table("background_presets")
    op.drop_index(op.f("ix_token_families_user_id"), table_name="token_families")
    op.drop_index(op.f("ix_token_families_expires_at"), table_name="token_families")
    op.drop_table("token_families")
    op.drop_index("uq_subscriptions_one_active", table_name="subscriptions")
    op.drop_index(op.f("ix_subscriptions_user_id"), table_name="subscriptions")
    op.drop_table("subscriptions")
    op.drop_index("uq_shot_types_owner_slug", table_name="shot_types")
    op.drop_index("uq_shot_types_organization_slug", table_name="shot_types")
    op.drop_index(op.f("ix_shot_types_public"), table_name="shot_types")
    op.drop_index("ix_shot_types_owner", table_name="shot_types")
    op.drop_index("ix_shot_types_organization", table_name="shot_types")
    op.drop_table("shot_types")
    op.drop_index(op.f("ix_resolution_presets_public"), table_name="resolution_presets")
    op.drop_index("ix_resolution_presets_owner", table_name="resolution_presets")
    op.drop_index("ix_resolution_presets_organization", table_name="resolution_presets")
    op.drop_table("resolution_presets")
    op.drop_index(op.f("ix_password_reset_tokens_user_id"), table_name="password_reset_tokens")
    op.drop_table("password_reset_tokens")
    op.drop_index("uq_memberships_one_owner", table_name="memberships")
    op.drop_index(op.f("ix_memberships_user_id"), table_name="memberships")
    op.drop_table("memberships")
    op.drop_index("uq_media_resources_owner_content_hash", table_name="media_resources")
    op.drop_index("uq_media_resources_organization_content_hash", table_name="media_resources")
    op.drop_index(op.f("ix_media_resources_public"), table_name="media_resources")
    op.drop_index("ix_media_resources_owner", table_name="media_resources")
    op.drop_index("ix_media_resources_organization", table_name="media_resources")
    op.drop_table("media_resources")
    op.drop_table("users")
    op.drop_index(op.f("ix_organizations_logo_media_id"), table_name="organizations")
    op.drop_table("organizations")
    op.drop_table("generation_models")
