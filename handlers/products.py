"""Products: catalogue items and their photographs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload, load_only

from db.base import utc_now
from db.inserting import insert_row
from db.models.brands import Brand
from db.models.media import MediaResource
from db.models.products import Product, ProductImage, ProductState
from db.session import session
from db.tenancy import get_owned, list_scope, readable_scope
from handlers.answers import Answer, created, no_content, ok
from handlers.conditional import apply_changes, get_for_change, may_change
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.preparing import decodes_after
from handlers.references import (
    may_create,
    refer_all,
    require_known,
    scope_of_new,
    take_picture,
    with_pictures,
)
from handlers.schemas.products import ProductImageSchema, ProductSchema
from studio.pictures import require_room_for_image

# Of a stored picture a product shows four of 14 columns.
SHOWN = load_only(MediaResource.extension, MediaResource.width, MediaResource.height, raiseload=True)
WITH_PICTURES = [
    joinedload(Product.cover_media).options(SHOWN),
    joinedload(Product.images).joinedload(ProductImage.media).options(SHOWN),
]
WITH_FILE = [joinedload(ProductImage.media)]
WITH_FILE_AND_PRODUCT = [*WITH_FILE, joinedload(ProductImage.product)]
PRODUCTS = Listing(
    Product,
    ProductSchema,
    filters={"brand_id": Product.brand_id, "category": Product.category, "state": Product.state},
    searched=(Product.name, Product.sku),
)
PRODUCT_IMAGES = Listing(ProductImage, ProductImageSchema, within={"product_id": ProductImage.product_id})


@requires(Permission.PRODUCTS_READ)
def list_products(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The products of one scope, narrowed by what is given."""
    scope = list_scope(organization_id)
    require_known({Brand: asked.get("brand_id")})
    return PRODUCTS.page(asked, scope)


@requires(Permission.PRODUCTS_WRITE)
@decodes_after(may_create, "cover_image")
def create_product(
    body: dict[str, Any],
    organization_id: UUID | None = None,
    mode: str = "complete",
    sync_captioning: bool = True,
) -> Answer:
    """Make a product; `basic` makes a draft. `sync_captioning` has no effect: older clients send it."""
    state = ProductState.DRAFT if mode == "basic" else ProductState.READY
    product = Product(**scope_of_new(organization_id), state=state, cover_media=None, images=[])
    _change(product, body)
    insert_row(product)
    return created(product, ProductSchema, f"/api/v1/products/{product.id}")


@requires(Permission.PRODUCTS_READ)
def get_product(product_id: UUID) -> Answer:
    """One product with its photographs."""
    return ok(get_owned(Product, product_id, options=WITH_PICTURES), ProductSchema)


@requires(Permission.PRODUCTS_WRITE)
@decodes_after(may_change(Product, "product_id", ProductSchema, WITH_PICTURES), "cover_image")
def update_product(product_id: UUID, body: dict[str, Any]) -> Answer:
    """Change what the body names."""
    product = get_for_change(Product, product_id, ProductSchema, WITH_PICTURES)
    _change(product, body)
    session().flush()
    return ok(product, ProductSchema)


@requires(Permission.PRODUCTS_WRITE)
def delete_product(product_id: UUID) -> Answer:
    """Remove the product with its photographs, unless something refers to it."""
    session().delete(get_for_change(Product, product_id, ProductSchema, WITH_PICTURES))
    session().flush()
    return no_content()


@requires(Permission.PRODUCTS_READ)
def list_product_images(product_id: UUID, **asked: Any) -> Answer:
    """The photographs of one product."""
    asked["product_id"] = get_owned(Product, product_id).id
    return PRODUCT_IMAGES.page(asked, readable_scope())


def _may_add_image(product_id: UUID, **_: Any) -> None:
    product = get_owned(Product, product_id)
    require_room_for_image(ProductImage, ProductImage.product_id == product.id)


@requires(Permission.PRODUCTS_WRITE)
@decodes_after(_may_add_image, "file_url")
def add_product_image(product_id: UUID, body: dict[str, Any]) -> Answer:
    """Take a photograph, as a file or by its address."""
    product = get_owned(Product, product_id, for_update=True)
    require_room_for_image(ProductImage, ProductImage.product_id == product.id)
    scope = {"owner_id": product.owner_id, "organization_id": product.organization_id}
    media = take_picture(body.get("file") or body["file_url"], product.organization_id)
    image = ProductImage(**scope, product_id=product.id, media=media, type=body["type"])
    session().add(image)
    product.updated_at = utc_now()
    session().flush()
    return created(image, ProductImageSchema, f"/api/v1/products/{product.id}/images/{image.id}")


@requires(Permission.PRODUCTS_READ)
def get_product_image(product_id: UUID, image_id: UUID) -> Answer:
    """One photograph of a product."""
    of_product = [ProductImage.product_id == product_id]
    return ok(get_owned(ProductImage, image_id, options=WITH_FILE, where=of_product), ProductImageSchema)


@requires(Permission.PRODUCTS_WRITE)
def delete_product_image(product_id: UUID, image_id: UUID) -> Answer:
    """Remove a photograph from its product."""
    of_product = [ProductImage.product_id == product_id]
    image = get_for_change(ProductImage, image_id, ProductImageSchema, WITH_FILE_AND_PRODUCT, of_product)
    image.product.updated_at = utc_now()
    session().delete(image)
    session().flush()
    return no_content()


def _change(product: Product, body: dict[str, Any]) -> None:
    refer_all(product, body, brand_id=Brand)
    apply_changes(product, with_pictures(product, body, cover_image="cover_media"))
