"""Keep rows visible that were public and are in use: products, logos and images of subjects."""

from db.rls.policies import (
    OWNED,
    PUBLIC,
)
from db.rls.policies import (
    create_reference_check as show_referred,
)
from db.rls.policies import (
    disable_rls as open_up,
)
from db.rls.policies import (
    drop_reference_check as hide_referred,
)
from db.rls.policies import (
    enable_rls as protect,
)
from db.rls.policies import (
    is_referenced as referred,
)
from db.rls.policies import (
    parent_is_visible as through,
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
