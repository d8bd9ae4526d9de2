"""Products and their photos."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload, load_only

from db.base import utc_now
from db.fast_path.insert import insert_row
from db.models.brands import Brand
from db.models.media import MediaResource
from db.models.products import Product, ProductImage, ProductState
from db.queries.references import delete_unreferenced
from db.session import current_session
from db.tenancy import get_visible, list_filter, readable_filter
from handlers.common.pagination import ListQuery
from handlers.common.permissions import Permission, requires
from handlers.common.prechecks import prefetches_images
from handlers.common.preconditions import apply_changes, get_for_update, precheck_update
from handlers.common.references import (
    accept_image,
    check_references,
    find_list_organization,
    precheck_create,
    resolve_images,
    resolve_ownership,
)
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.schemas.products import ProductImageSchema, ProductSchema
from studio.catalogue.image_limits import require_image_capacity
from studio.media.stored_image import StoredImage

# A product shows four of the 14 columns of an image.
MEDIA_COLUMNS = load_only(MediaResource.extension, MediaResource.width, MediaResource.height, raiseload=True)
IMAGE_OPTIONS = [
    joinedload(Product.cover_media).options(MEDIA_COLUMNS),
    joinedload(Product.images).joinedload(ProductImage.media).options(MEDIA_COLUMNS),
]
FILE_OPTIONS = [joinedload(ProductImage.media)]
FILE_AND_PRODUCT_OPTIONS = [*FILE_OPTIONS, joinedload(ProductImage.product)]
PRODUCTS = ListQuery(
    Product,
    ProductSchema,
    filters={"brand_id": Product.brand_id, "category": Product.category, "state": Product.state},
    search_columns=(Product.name, Product.sku),
)
PRODUCT_IMAGES = ListQuery(ProductImage, ProductImageSchema, parent={"product_id": ProductImage.product_id})


@requires(Permission.PRODUCTS_READ)
def list_products(organization_id: UUID | None = None, **params: Any) -> ApiResponse:
    """List the products of a tenant."""
    organization_id = find_list_organization(organization_id, {Brand: params.get("brand_id")})
    return PRODUCTS.list_response(params, list_filter(organization_id))


@requires(Permission.PRODUCTS_WRITE)
@prefetches_images(precheck_create, "cover_image")
def create_product(
    body: dict[str, Any],
    organization_id: UUID | None = None,
    mode: str = "complete",
    sync_captioning: bool = True,
) -> ApiResponse:
    """Create a product. `basic` creates a draft; `sync_captioning` has no effect, older clients send it."""
    state = ProductState.DRAFT if mode == "basic" else ProductState.READY
    product = Product(**resolve_ownership(organization_id), state=state, cover_media=None, images=[])
    _apply_body(product, body)
    insert_row(product)
    return created(product, ProductSchema, f"/api/v1/products/{product.id}")


@requires(Permission.PRODUCTS_READ)
def get_product(product_id: UUID) -> ApiResponse:
    """Return a product with its photos."""
    return ok(get_visible(Product, product_id, options=IMAGE_OPTIONS), ProductSchema)


@requires(Permission.PRODUCTS_WRITE)
@prefetches_images(precheck_update(Product, "product_id", ProductSchema, IMAGE_OPTIONS), "cover_image")
def update_product(product_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a product."""
    product = get_for_update(Product, product_id, ProductSchema, IMAGE_OPTIONS)
    _apply_body(product, body)
    current_session().flush()
    return ok(product, ProductSchema)


@requires(Permission.PRODUCTS_WRITE)
def delete_product(product_id: UUID) -> ApiResponse:
    """Delete a product that no row refers to, with its photos."""
    delete_unreferenced(get_for_update(Product, product_id, ProductSchema, IMAGE_OPTIONS))
    return no_content()


@requires(Permission.PRODUCTS_READ)
def list_product_images(product_id: UUID, **params: Any) -> ApiResponse:
    """List the photos of a product."""
    params["product_id"] = get_visible(Product, product_id).id
    return PRODUCT_IMAGES.list_response(params, readable_filter())


def _authorize_add_image(product_id: UUID, **_: Any) -> None:
    get_visible(Product, product_id)


def _precheck_add_image(product_id: UUID, **_: Any) -> None:
    product = get_visible(Product, product_id)
    require_image_capacity(ProductImage, ProductImage.product_id == product.id)


@requires(Permission.PRODUCTS_WRITE)
@prefetches_images(_precheck_add_image, authorize=_authorize_add_image)
def add_product_image(product_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Add a file to the photos of a product."""
    return _add_image(product_id, body["file"], body["type"])


@requires(Permission.PRODUCTS_WRITE)
@prefetches_images(_precheck_add_image, "file_url")
def add_product_image_from_url(product_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Add a photo to a product by its URL."""
    return _add_image(product_id, body["file_url"], body["type"])


def _add_image(product_id: UUID, source: StoredImage | str, type_: str) -> ApiResponse:
    product = get_visible(Product, product_id, for_update=True)
    require_image_capacity(ProductImage, ProductImage.product_id == product.id)
    ownership = {"owner_id": product.owner_id, "organization_id": product.organization_id}
    media = accept_image(source, product.organization_id, product.owner_id)
    image = ProductImage(**ownership, product_id=product.id, media=media, type=type_)
    current_session().add(image)
    product.updated_at = utc_now()
    current_session().flush()
    return created(image, ProductImageSchema, f"/api/v1/products/{product.id}/images/{image.id}")


@requires(Permission.PRODUCTS_READ)
def get_product_image(product_id: UUID, image_id: UUID) -> ApiResponse:
    """Return a photo of a product."""
    of_product = [ProductImage.product_id == product_id]
    return ok(get_visible(ProductImage, image_id, options=FILE_OPTIONS, where=of_product), ProductImageSchema)


@requires(Permission.PRODUCTS_WRITE)
def delete_product_image(product_id: UUID, image_id: UUID) -> ApiResponse:
    """Delete a photo of a product."""
    of_product = [ProductImage.product_id == product_id]
    image = get_for_update(ProductImage, image_id, ProductImageSchema, FILE_AND_PRODUCT_OPTIONS, of_product)
    image.product.updated_at = utc_now()
    current_session().delete(image)
    current_session().flush()
    return no_content()


def _apply_body(product: Product, body: dict[str, Any]) -> None:
    check_references(product, body, brand_id=Brand)
    apply_changes(product, resolve_images(product, body, cover_image="cover_media"))
