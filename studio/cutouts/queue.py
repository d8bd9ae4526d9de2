"""The queue of cut-outs: what is special about its rows, and the finished cut-outs of photos.

Within a tenant the newest request comes first, because a person may wait for it.

Knows nothing of how a cut-out is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import joinedload

from db.base import utc_now
from db.models.media import MediaResource
from db.models.products import CutoutStatus, ProductImage, ProductImageCutout
from db.session import Database, current_session
from studio.catalog.visibility import sync_media_visibility
from studio.cutouts.requests import UnusableCutoutInputs, restart
from studio.infrastructure.storage import Storage
from studio.media.ingest import ImageOrigin, store_image
from studio.media.stored_image import StoredImage
from studio.queue.row_queue import Lease, LeaseLost, RowQueue, lock_next


@dataclass(frozen=True)
class StoredFile:
    """A stored image of a lease: its id and its extension."""

    media_id: UUID
    extension: str


@dataclass(frozen=True, kw_only=True)
class CutoutLease(Lease):
    """A leased cut-out."""

    tenant_id: UUID
    """The names of stored files are derived from this id and from their content."""
    input_hash: str
    """The hash of what the cut-out is made from."""
    photo: StoredFile
    region: Mapping[str, float] | None
    mask: StoredFile | None


@dataclass(frozen=True)
class MadeCutout:
    """A cut-out that was made."""

    image: StoredImage | None
    """The file to store; None if the cut-out is the photo as it is."""
    method: str
    confidence: float
    renderer_version: str
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def find_made(database: Database, product_image_id: UUID, input_hash: str) -> dict[str, Any] | None:
    """Return the finished cut-out of a photo for the renderer, or None if there is none from these inputs.

    A cut-out of another version of the renderer is returned too: the renderer compares `renderer_version`.

    Args:
        database: The database of the queue.
        product_image_id: The photo.
        input_hash: The hash of what the cut-out is made from.
    """
    # unscoped: the photo of a generation, which was checked when the generation was created
    query = (
        select(ProductImageCutout)
        .options(joinedload(ProductImageCutout.media))
        .where(*_is_of(product_image_id, input_hash), ProductImageCutout.status == CutoutStatus.COMPLETED)
    )
    with database.transaction(write=False) as reading:
        cutout = reading.scalars(query).one_or_none()
        if cutout is None or cutout.media is None:
            return None
        return {
            "media_id": str(cutout.media_id) if cutout.facts.get("has_file") else None,
            "extension": cutout.media.extension,
            "renderer_version": cutout.renderer_version,
            "facts": dict(cutout.facts),
        }


def is_available(product_image_id: UUID, input_hash: str) -> ColumnElement[bool]:
    """Return the condition that the cut-out of a photo from these inputs can be leased now."""
    return and_(CUTOUTS.available(), *_is_of(product_image_id, input_hash))


def choose_of_photo(product_image_id: UUID, input_hash: str) -> ProductImageCutout | None:
    """Return the cut-out of a photo from these inputs, locked, if it can be leased."""
    # unscoped: as in `find_made`
    query = select(ProductImageCutout).where(is_available(product_image_id, input_hash))
    return lock_next(query, ProductImageCutout)


def is_being_made(database: Database, product_image_id: UUID, input_hash: str) -> bool:
    """Return whether a worker makes the cut-out of a photo from these inputs, or leases it at this moment."""
    is_delayed = ProductImageCutout.lease_owner.is_(None) & ProductImageCutout.lease_expires_at.is_not(None)
    is_open = ProductImageCutout.status.in_(CUTOUTS.open_statuses)
    # unscoped: as in `find_made`
    query = select(ProductImageCutout.id).where(*_is_of(product_image_id, input_hash), is_open, ~is_delayed)
    with database.transaction(write=False) as reading:
        return reading.scalar(query) is not None


def _is_of(product_image_id: UUID, input_hash: str) -> tuple[ColumnElement[bool], ...]:
    # compared: by the database, and hashes of public ids
    is_of_inputs = ProductImageCutout.input_hash == input_hash
    return ProductImageCutout.product_image_id == product_image_id, is_of_inputs


def request_outdated(database: Database, product_image_id: UUID, renderer_version: str) -> None:
    """Queue a cut-out again that another version of the renderer made."""
    with database.transaction(write=True) as writing:
        query = select(ProductImageCutout).where(  # unscoped: as in `find_made`
            ProductImageCutout.product_image_id == product_image_id,
            ProductImageCutout.status == CutoutStatus.COMPLETED,
            ProductImageCutout.renderer_version != renderer_version,
        )
        cutout = writing.scalar(query.with_for_update(skip_locked=True))
        if cutout is not None:
            restart(cutout)


def complete_cutout(storage: Storage, lease: CutoutLease, made: MadeCutout, stored_id: UUID | None) -> None:
    """Record a cut-out that was made.

    Args:
        storage: Where its file is.
        lease: The lease.
        made: The cut-out.
        stored_id: The id of its file, if it has one of its own.

    Raises:
        LeaseLost: Its photo or region has changed, or another worker has taken it over.
    """
    cutout = CUTOUTS.lock(lease)
    # compared: no secrets, but what the cut-out is made from
    if cutout.input_hash != lease.input_hash:
        raise LeaseLost
    media_id = lease.photo.media_id
    if made.image is not None:
        media = store_image(
            storage,
            made.image,
            cutout.organization_id,
            cutout.owner_id,
            resource_id=stored_id,
            origin=ImageOrigin(product_id=_find_product_id(cutout)),
        )
        media_id = media.id
    # One UPDATE: a second one of a transaction checks all foreign keys again, and would wait for a change
    # of the photo, which waits for the row of its cut-out.
    cutout.media_id = media_id
    for name, value in describe_made(made).items():
        setattr(cutout, name, value)
    cutout.status = CutoutStatus.COMPLETED
    cutout.lease_owner = cutout.lease_expires_at = None
    current_session().flush()
    if made.image is not None:
        sync_media_visibility(cutout.media_id)


def _find_product_id(cutout: ProductImageCutout) -> UUID | None:
    # unscoped: the photo of a leased cut-out
    return current_session().scalar(
        select(ProductImage.product_id).where(
            ProductImage.id == cutout.product_image_id
        )  # unscoped: see above
    )


def describe_made(made: MadeCutout) -> dict[str, Any]:
    """Return the columns of a cut-out that was made, without its file."""
    return {
        "method": made.method,
        "confidence": made.confidence,
        "warnings": list(made.warnings),
        "facts": {**made.facts, "has_file": made.image is not None},
        "renderer_version": made.renderer_version,
        "made_at": utc_now(),
    }


def _take(cutout: ProductImageCutout, token: str) -> CutoutLease:
    # unscoped: the photo of the leased cut-out
    query = select(ProductImage).where(ProductImage.id == cutout.product_image_id)
    query = query.options(joinedload(ProductImage.media), joinedload(ProductImage.mask_media))
    image = current_session().scalars(query).one()
    return CutoutLease(
        row_id=cutout.id,
        token=token,
        tenant_id=cutout.organization_id or cutout.owner_id,
        input_hash=cutout.input_hash,
        photo=_to_file(image.media),
        region=image.region,
        mask=None if image.mask_media is None else _to_file(image.mask_media),
    )


def _to_file(media: MediaResource) -> StoredFile:
    return StoredFile(media.id, media.extension)


def _fail(cutout: ProductImageCutout, _error: None) -> None:
    cutout.status = CutoutStatus.FAILED


CUTOUTS = RowQueue(
    name="cut-out",
    model=ProductImageCutout,
    take=_take,
    end_failed=_fail,
    order=lambda: (ProductImageCutout.requested_at.desc(), ProductImageCutout.id.desc()),
    permanent={UnusableCutoutInputs: lambda _error: None},
)
