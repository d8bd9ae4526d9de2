"""Request the cut-out of a product photo, and return the current one.

Knows no worker and no image library: servers import this module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import utc_now
from db.errors import Conflict, TemporaryConflict
from db.fast_path.projections import Record
from db.models.products import CutoutStatus, Product, ProductImage, ProductImageCutout
from db.session import after_commit, current_session
from studio.infrastructure.pubsub import GENERATIONS

RETRY_AFTER_SECONDS = 2
"""When a client may expect the cut-out: making one takes one to nine seconds."""


class CutoutPending(TemporaryConflict):
    """The cut-out waits for a worker, or a worker makes it."""

    code = "cutout_pending"
    default_detail = "The cut-out is being made: request it again later"
    retry_after = RETRY_AFTER_SECONDS


class CutoutFailed(Conflict):
    """The cut-out could not be made from the photo, its region and its mask."""

    code = "cutout_failed"
    default_detail = "The cut-out could not be made: change the region or the mask, or upload another image"


class UnusableCutoutInputs(Exception):
    """The photo or the mask of a cut-out is missing, cannot be read, or shows nothing."""


def hash_inputs(media_id: UUID | str, region: Mapping[str, Any] | None, mask_id: UUID | str | None) -> str:
    """Return the hash of what a cut-out is made from.

    Args:
        media_id: The stored photo. Its content never changes.
        region: The box around the product, None for the whole photo.
        mask_id: The stored mask, None if there is none.
    """
    box = None if region is None else [float(region[name]) for name in ("x", "y", "width", "height")]
    inputs = [str(media_id), box, None if mask_id is None else str(mask_id)]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def request_cutout(image: ProductImage) -> None:
    """Queue the cut-out of a photo, unless the photo has a current one or waits for it.

    The photo's `cutout` must be loaded, and the photo new or flushed. A worker that makes a cut-out from the
    previous region or mask loses its lease.
    """
    input_hash = hash_inputs(image.media_id or image.media.id, image.region, image.mask_media_id)
    cutout = image.cutout
    if cutout is None:
        image.cutout = ProductImageCutout(
            owner_id=image.owner_id, organization_id=image.organization_id, input_hash=input_hash
        )
    # compared: hashes of public ids, no secrets.
    elif cutout.input_hash != input_hash or cutout.status == CutoutStatus.FAILED:
        # Locked, because a worker may lease or complete the row that was read.
        current_session().refresh(cutout, with_for_update=True)
        restart(cutout)
        cutout.input_hash = input_hash
    else:
        return
    after_commit(GENERATIONS.notify)


def restart(cutout: ProductImageCutout) -> None:
    """Make a cut-out pending again, without the result that it had."""
    cutout.status, cutout.attempts, cutout.requested_at = CutoutStatus.PENDING, 0, utc_now()
    cutout.lease_owner = cutout.lease_expires_at = None
    cutout.media_id = cutout.method = cutout.confidence = cutout.renderer_version = cutout.made_at = None
    cutout.warnings, cutout.facts = [], {}


def require_cutout(cutout: Record | None) -> Record:
    """Return the cut-out of a photo if it is finished. None is one that was never requested.

    Raises:
        CutoutPending: It is not made yet.
        CutoutFailed: It could not be made.
    """
    if cutout is not None and cutout.status == CutoutStatus.COMPLETED:
        return cutout
    raise CutoutFailed() if cutout is not None and cutout.status == CutoutStatus.FAILED else CutoutPending()


def list_image_media_ids(product: Product) -> Iterable[UUID | None]:
    """Return the ids of all stored images of a product: cover, photos, masks and cut-outs."""
    # unscoped: the photos of a product that was loaded for the caller
    of_photos = (
        select(ProductImage.media_id, ProductImage.mask_media_id, ProductImageCutout.media_id)
        .outerjoin(ProductImageCutout, ProductImageCutout.product_image_id == ProductImage.id)
        .where(ProductImage.product_id == product.id)
    )
    rows = current_session().execute(of_photos)
    return [product.cover_media_id, *(media_id for row in rows for media_id in row)]
