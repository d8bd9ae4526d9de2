"""Products and their photos."""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields
from sqlalchemy import Select
from sqlalchemy.orm import joinedload, load_only

from db.audit import set_target
from db.base import new_id
from db.caller import current_caller, require_permission_in
from db.errors import ExternalIdTaken, NotFound, names_place
from db.libpq.statements import Query
from db.models.brands import Brand
from db.models.media import MediaResource
from db.models.products import SKU_OR_EMPTY, Product, ProductImage, ProductState
from db.tenancy import external_id_query, find_by_external_id, get_visible
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.plain_writes import plain_write
from handlers.common.preconditions import (
    apply_changes,
    get_for_update,
    precheck_update,
    require_etag_match,
    require_put_preconditions,
)
from handlers.common.reads import One, Reading, Step, VisibleRows, read_permission_in
from handlers.common.references import (
    accept_image,
    check_references,
    precheck_create,
    resolve_image,
    resolve_images,
    resolve_ownership,
)
from handlers.common.responses import ApiResponse, created, no_content, ok
from handlers.pipeline.batches import Action, lock_targets, run_batch
from handlers.pipeline.prechecks import prefetches_images
from handlers.schemas.products import ProductImageCutoutSchema, ProductImageSchema, ProductSchema
from studio.catalog.image_limits import require_image_capacity
from studio.catalog.visibility import check_may_publish
from studio.cutouts.requests import request_cutout, require_cutout
from studio.media.stored_image import StoredImage
from studio.products import product_images, products, transfers

# A product shows four of the 14 columns of an image.
MEDIA_COLUMNS = load_only(MediaResource.extension, MediaResource.width, MediaResource.height, raiseload=True)
IMAGE_OPTIONS = [
    joinedload(Product.cover_media).options(MEDIA_COLUMNS),
    joinedload(Product.images).options(
        joinedload(ProductImage.media).options(MEDIA_COLUMNS),
        joinedload(ProductImage.mask_media).options(MEDIA_COLUMNS),
    ),
]
NULL_BY_DEFAULT = ("sku", "description", "category", "gender", "materials", "color", "brand_id")
"""The properties that a PUT sets to null where they are absent."""
FILE_OPTIONS = [joinedload(ProductImage.media), joinedload(ProductImage.mask_media)]
WRITE_OPTIONS = [*FILE_OPTIONS, joinedload(ProductImage.product), joinedload(ProductImage.cutout)]
PRODUCTS = ListQuery(
    Product,
    ProductSchema,
    filters={
        "brand_id": Product.brand_id,
        "category": Product.category,
        "state": Product.state,
        "sku": Product.sku,
        "external_id": Product.external_id,
    },
    search_columns=(Product.name, Product.sku),
    sort_expressions={"sku": SKU_OR_EMPTY},
)
PHOTO_CUTOUTS = VisibleRows(
    ProductImage, Schema.from_dict({"cutout": fields.Nested(ProductImageCutoutSchema)})
)
PRODUCT_IMAGES = ListQuery(ProductImage, ProductImageSchema, parent={"product_id": ProductImage.product_id})


list_products = Page(PRODUCTS, Permission.PRODUCTS_READ, narrowed_by={"brand_id": Brand})


@plain_write
@requires(Permission.PRODUCTS_WRITE)
@prefetches_images(precheck_create, "cover_image", "images/*/url")
def create_product(
    body: dict[str, Any],
    organization_id: UUID | None = None,
    mode: str = "complete",
    sync_captioning: bool = True,
) -> ApiResponse:
    """Create a product, with its first photos.

    `basic` creates a draft. `sync_captioning` has no effect; older clients send it.
    """
    check_may_publish(body)
    state = ProductState.DRAFT if mode == "basic" else ProductState.READY
    product = Product(**resolve_ownership(organization_id), state=state, cover_media=None, images=[])
    photos = body.pop("images", ())
    _apply_body(product, body)
    for index, photo in enumerate(photos):
        with names_place(f"/images/{index}/url"):
            image = _build_image(product, photo["url"], photo["type"], index + 1)
        request_cutout(image)
        product.images.append(image)
        if image.type == "primary" and product.cover_media is None:
            product.cover_media = image.media
    products.create_product(product)
    return created(product, ProductSchema, f"/api/v1/products/{product.id}")


get_product = One(Product, ProductSchema, Permission.PRODUCTS_READ)


@plain_write
@requires(Permission.PRODUCTS_WRITE)
@prefetches_images(precheck_update(Product, "product_id", ProductSchema, IMAGE_OPTIONS), "cover_image")
def update_product(product_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update a product."""
    product = get_for_update(Product, product_id, ProductSchema, IMAGE_OPTIONS)
    check_may_publish(body, product.public)
    was_public, cover_before = product.public, product.cover_media_id
    _apply_body(product, body)
    products.update_product(product, [cover_before] if was_public else [])
    return ok(product, ProductSchema)


@requires(Permission.PRODUCTS_READ)
def get_product_by_external_id(external_id: str, organization_id: UUID | None = None) -> Reading[ApiResponse]:
    """Return a product of a tenant by its external id."""
    yield from read_permission_in(organization_id)
    query = external_id_query(Product, external_id, organization_id)
    queries = [Query(statement, query.values) for statement in _select_with_photos(query.statement)]
    found, *collections = yield Step(queries, is_snapshot=True)
    if not found:
        raise NotFound(value=external_id)
    return ok(PRODUCTS.projection.build_records(found, collections)[0], ProductSchema)


@cache
def _select_with_photos(product: Select[Any]) -> list[Select[Any]]:
    """Return the statements of what a product shows, and of its photos."""
    projection = PRODUCTS.projection
    return [projection.apply(product), *projection.collections_of(product.with_only_columns(Product.id))]


def _find_for_put(external_id: str, organization_id: UUID | None, for_update: bool) -> Product | None:
    product = find_by_external_id(Product, external_id, organization_id, for_update, IMAGE_OPTIONS)
    require_put_preconditions(product, ProductSchema)
    return product


def _precheck_put(external_id: str, organization_id: UUID | None = None, **_: Any) -> None:
    _find_for_put(external_id, organization_id, for_update=False)


@requires(Permission.PRODUCTS_WRITE)
@prefetches_images(_precheck_put, "cover_image")
def put_product_by_external_id(
    external_id: str, body: dict[str, Any], organization_id: UUID | None = None
) -> ApiResponse:
    """Create or replace the product of a tenant that has an external id."""
    ownership = resolve_ownership(organization_id)
    product = _find_for_put(external_id, organization_id, for_update=True)
    if "cover_image" in body:
        body["cover_media"] = resolve_image(body.pop("cover_image"), **ownership)
    if product is None:
        check_may_publish(body)
        product = Product(**ownership, external_id=external_id, cover_media=None, images=[])
        _replace(product, body)
        if products.create_product_unless_taken(product):
            return created(product, ProductSchema, f"/api/v1/products/{product.id}")
        # Another request was faster, so this one replaces its product, if its preconditions still hold.
        product = _find_for_put(external_id, organization_id, for_update=True)
        if product is None:
            raise ExternalIdTaken("Another request created and deleted the product: send the request again")
    check_may_publish(body, product.public)
    was_public, cover_before = product.public, product.cover_media_id
    _replace(product, body)
    products.update_product(product, [cover_before] if was_public else [])
    # The path does not have its id.
    set_target("product", product.id)
    return ok(product, ProductSchema)


@plain_write
@requires(Permission.PRODUCTS_WRITE)
def delete_product(product_id: UUID) -> ApiResponse:
    """Delete a product that no row refers to, with its photos."""
    products.delete_product(get_for_update(Product, product_id, ProductSchema, IMAGE_OPTIONS))
    return no_content()


@requires(Permission.PRODUCTS_WRITE)
def transfer_product(product_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Move a product to another organization or to the personal resources of the caller."""
    transfers.transfer(get_visible(Product, product_id, for_update=True), body["organization_id"])
    return ok(get_visible(Product, product_id, options=IMAGE_OPTIONS), ProductSchema)


BATCH_ACTIONS = {
    "create": Action(create_product),
    "update": Action(update_product, "product_id"),
    "delete": Action(delete_product, "product_id", has_body=False),
}


@requires(Permission.PRODUCTS_WRITE)
def batch_products(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Create, update and delete products; a rejected item does not affect the others."""
    require_permission_in(organization_id)
    products.lock_new_products(organization_id, current_caller().user_id)
    rows = lock_targets(Product, body["items"], organization_id)
    return run_batch(body["items"], BATCH_ACTIONS, organization_id, rows)


list_product_images = Page(PRODUCT_IMAGES, Permission.PRODUCTS_READ, parent=Product)


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
    image = _build_image(product, source, type_)
    product_images.add_product_image(product, image)
    return created(image, ProductImageSchema, f"/api/v1/products/{product.id}/images/{image.id}")


get_product_image = One(ProductImage, ProductImageSchema, Permission.PRODUCTS_READ)


def _precheck_update_image(product_id: UUID, image_id: UUID, **_: Any) -> None:
    of_product = [ProductImage.product_id == product_id]
    image = get_visible(ProductImage, image_id, options=FILE_OPTIONS, where=of_product)
    require_etag_match(image, ProductImageSchema)


@requires(Permission.PRODUCTS_WRITE)
@prefetches_images(_precheck_update_image, "mask_url")
def update_product_image(product_id: UUID, image_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Change a photo of a product: its region and mask, type, position and alternative text."""
    image = _lock_image(product_id, image_id)
    product_images.update_product_image(image, resolve_images(image, body, mask_url="mask_media"))
    return ok(image, ProductImageSchema)


@requires(Permission.PRODUCTS_WRITE)
def delete_product_image(product_id: UUID, image_id: UUID) -> ApiResponse:
    """Delete a photo of a product."""
    product_images.delete_product_image(_lock_image(product_id, image_id))
    return no_content()


@requires(Permission.PRODUCTS_READ)
def get_product_image_cutout(product_id: UUID, image_id: UUID) -> Reading[ApiResponse]:
    """Return the cut-out of a photo, once a worker has made it."""
    photo = yield from PHOTO_CUTOUTS.get(image_id, product_id=product_id)
    return ok(require_cutout(photo.cutout), ProductImageCutoutSchema)


def _lock_image(product_id: UUID, image_id: UUID) -> ProductImage:
    """Return a photo for an update. The product is locked first, as by all writers of photos."""
    get_visible(Product, product_id, for_update=True)
    of_product = [ProductImage.product_id == product_id]
    return get_for_update(ProductImage, image_id, ProductImageSchema, WRITE_OPTIONS, of_product)


def _build_image(product: Product, source: StoredImage | str, type_: str, position: int = 1) -> ProductImage:
    media = accept_image(source, product.organization_id, product.owner_id)
    ownership = {"owner_id": product.owner_id, "organization_id": product.organization_id}
    values = {"media": media, "mask_media": None, "cutout": None, "type": type_, "position": position}
    return ProductImage(**ownership, id=new_id(), **values)


def _apply_body(product: Product, body: dict[str, Any]) -> None:
    check_references(product, body, brand_id=Brand)
    apply_changes(product, resolve_images(product, body, cover_image="cover_media"))


def _replace(product: Product, body: dict[str, Any]) -> None:
    """Set all properties of a product but its images; `cover_media` is the cover image of the body."""
    check_references(product, body, brand_id=Brand)
    primary = next((image.media for image in product.images if image.type == "primary"), None)
    changes = {**dict.fromkeys(NULL_BY_DEFAULT), "cover_media": primary, **body}
    # Replaced, not merged as by an update.
    product.custom_metadata = changes.pop("metadata", {})
    apply_changes(product, changes)
