"""Keep rows visible that were public and are in use: products, logos and images of subjects."""

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

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

PICTURES_BEFORE = [
    ("background_presets", "image_media_id"),
    ("product_images", "media_id"),
    ("products", "cover_media_id"),
    ("styles", "cover_media_id"),
    ("subject_base_images", "media_id"),
    ("subjects", "cover_media_id"),
]
PICTURES = [*PICTURES_BEFORE, ("brands", "logo_media_id"), ("organizations", "logo_media_id")]
PRODUCTS = [("look_products", "product_id"), ("looks", "main_product_id")]


def upgrade() -> None:
    disable_rls("media_resources")
    drop_reference_check("media_resources")
    create_reference_check("media_resources", PICTURES)
    enable_rls("media_resources", OWNED, readable=f"{PUBLIC} OR {is_referenced('media_resources')}")

    disable_rls("products")
    create_reference_check("products", PRODUCTS)
    enable_rls("products", OWNED, readable=f"{PUBLIC} OR {is_referenced('products')}")

    disable_rls("subject_base_images")
    enable_rls(
        "subject_base_images", OWNED, readable=f"{PUBLIC} OR {parent_is_visible('subjects', 'subject_id')}"
    )


def downgrade() -> None:
    disable_rls("subject_base_images")
    enable_rls("subject_base_images", OWNED, readable=PUBLIC)

    disable_rls("products")
    drop_reference_check("products")
    enable_rls("products", OWNED, readable=PUBLIC)

    disable_rls("media_resources")
    drop_reference_check("media_resources")
    create_reference_check("media_resources", PICTURES_BEFORE)
    enable_rls("media_resources", OWNED, readable=f"{PUBLIC} OR {is_referenced('media_resources')}")
