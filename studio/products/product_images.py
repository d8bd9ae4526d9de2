"""Add, change and delete the photos of products: their order, and what a person chose to cut out.

Callers have locked the product, so that the positions of its photos stay without gaps. A change of a photo is
a change of its product, which shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update

from db.base import utc_now
from db.errors import Conflict
from db.models.media import MediaResource
from db.models.products import Product, ProductImage
from db.session import current_session
from studio.catalog.visibility import sync_media_visibility
from studio.cutouts.requests import request_cutout
from studio.media.fetching import ImageNotUsable
from studio.webhooks.events import emit_product_event

# Shares are sums of floating-point numbers: 0.3 + 0.7 may be larger than 1.
_TOLERANCE = 1e-6
_MAX_RATIO_ERROR = 0.02


class RegionOutsideImage(Conflict):
    """The region is not inside the image."""

    code = "region_outside_image"
    default_detail = "The region ends outside of the image: `x` + `width` and `y` + `height` are at most 1"


def add_product_image(product: Product, image: ProductImage) -> None:
    """Add a photo to a product, after its other photos, and queue its cut-out."""
    attach_product_image(product, image)
    emit_product_event("product.updated", product)


def attach_product_image(product: Product, image: ProductImage, position: int | None = None) -> None:
    """Add a photo to a product, and queue its cut-out, without an event: imports add many.

    Args:
        product: The product.
        image: The photo, with its file.
        position: The position of the photo; photos from there on move down. By default it is the last one.
    """
    last = _count_images(product) + 1
    if position is not None:
        _shift(product, ProductImage.position >= position, 1)
    image.product_id, image.position = product.id, position or last
    if image.media.product_id is None and image.media.organization_id == product.organization_id:
        image.media.product_id = product.id
    request_cutout(image)
    current_session().add(image)
    _set_first_cover(product, image)
    product.updated_at = utc_now()
    current_session().flush()
    if product.public:
        sync_media_visibility(image.media_id)


def update_product_image(image: ProductImage, changes: Mapping[str, Any]) -> None:
    """Change a photo, and queue its cut-out again if its region or mask changes.

    Args:
        image: The photo, with its product, its files and its cut-out.
        changes: New values by column; `position` moves the photo and shifts those between.

    Raises:
        RegionOutsideImage: The region is not inside the image.
        ImageNotUsable: The mask has other proportions than the photo.
    """
    region, mask = changes.get("region"), changes.get("mask_media")
    if region is not None:
        _require_inside(region)
    if mask is not None:
        _require_same_ratio(mask, image.media)
    previous_ids = (image.mask_media_id, image.cutout.media_id if image.cutout else None)
    for name, value in changes.items():
        if name != "position":
            setattr(image, name, value)
    if "position" in changes:
        _move(image, changes["position"])
    _set_first_cover(image.product, image)
    image.product.updated_at = utc_now()
    current_session().flush()
    if {"region", "mask_media"} & changes.keys():
        request_cutout(image)
        current_session().flush()
    if image.product.public:
        sync_media_visibility(*previous_ids, image.mask_media_id)
    emit_product_event("product.updated", image.product)


def delete_product_image(image: ProductImage) -> None:
    """Delete a photo with its cut-out; the photos behind it move up."""
    product, position = image.product, image.position
    media_ids = (image.media_id, image.mask_media_id, image.cutout.media_id if image.cutout else None)
    current_session().delete(image)
    current_session().flush()
    _shift(product, ProductImage.position > position, -1)
    product.updated_at = utc_now()
    current_session().flush()
    if product.public:
        sync_media_visibility(*media_ids)
    emit_product_event("product.updated", product)


def _count_images(product: Product) -> int:
    # unscoped: the photos of a product that was loaded for the caller
    counted = select(func.count()).select_from(ProductImage).where(ProductImage.product_id == product.id)
    return current_session().scalar(counted) or 0


def _set_first_cover(product: Product, image: ProductImage) -> None:
    if image.type == "primary" and product.cover_media_id is None:
        product.cover_media_id = image.media.id


def _require_inside(region: Mapping[str, float]) -> None:
    if max(region["x"] + region["width"], region["y"] + region["height"]) > 1 + _TOLERANCE:
        raise RegionOutsideImage(pointer="/region")


def _require_same_ratio(mask: MediaResource, photo: MediaResource) -> None:
    ratio = (mask.width * photo.height) / (mask.height * photo.width)
    if abs(ratio - 1) > _MAX_RATIO_ERROR:
        raise ImageNotUsable(
            f"The mask has {mask.width} x {mask.height} pixels: it needs the proportions of the image, "
            f"{photo.width} x {photo.height}",
            pointer="/mask_url",
        )


def _move(image: ProductImage, requested: int) -> None:
    """Move a photo to a position, at most the last one, and shift the photos between."""
    before, after = image.position, min(requested, _count_images(image.product))
    if after < before:
        _shift(image.product, ProductImage.position.between(after, before - 1), 1)
    elif after > before:
        _shift(image.product, ProductImage.position.between(before + 1, after), -1)
    image.position = after


def _shift(product: Product, condition: Any, places: int) -> None:
    current_session().execute(
        update(ProductImage)  # unscoped: the photos of a product that was loaded for the caller
        .where(ProductImage.product_id == product.id, condition)
        .values(position=ProductImage.position + places)
        .execution_options(synchronize_session=False)
    )
