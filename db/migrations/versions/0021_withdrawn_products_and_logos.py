"""What was published and is withdrawn stays where it is in use: products, logos, pictures of subjects too."""

from db.policies import (
    OWNED,
    PUBLIC,
    hide_referred,
    open_up,
    protect,
    referred,
    show_referred,
    through,
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
    open_up("media_resources")
    hide_referred("media_resources")
    show_referred("media_resources", PICTURES)
    protect("media_resources", OWNED, readable=f"{PUBLIC} OR {referred('media_resources')}")

    open_up("products")
    show_referred("products", PRODUCTS)
    protect("products", OWNED, readable=f"{PUBLIC} OR {referred('products')}")

    open_up("subject_base_images")
    protect("subject_base_images", OWNED, readable=f"{PUBLIC} OR {through('subjects', 'subject_id')}")


def downgrade() -> None:
    open_up("subject_base_images")
    protect("subject_base_images", OWNED, readable=PUBLIC)

    open_up("products")
    hide_referred("products")
    protect("products", OWNED, readable=PUBLIC)

    open_up("media_resources")
    hide_referred("media_resources")
    show_referred("media_resources", PICTURES_BEFORE)
    protect("media_resources", OWNED, readable=f"{PUBLIC} OR {referred('media_resources')}")
