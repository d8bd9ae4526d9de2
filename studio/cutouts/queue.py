"""The queue of cut-outs: lease the next one, renew the lease, record the result.

The row is the queue (see `studio.leases`). Tenants take turns: the next cut-out belongs to the tenant that
has waited longest since its last lease, so a tenant with thousands of new photos delays another one by one
cut-out. Within a tenant the newest request comes first, because a person may wait for it.

Knows nothing of how a cut-out is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import joinedload

from db.base import utc_now
from db.models.media import MediaResource
from db.models.products import CutoutStatus, ProductImage, ProductImageCutout
from db.session import Database, current_session
from studio import leases
from studio.catalogue.visibility import sync_media_visibility
from studio.cutouts.requests import restart
from studio.media.ingest import ImageOrigin, store_image
from studio.media.storage import Storage, media_key
from studio.media.stored_image import StoredImage

MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class StoredFile:
    """A stored image of a lease: its id and its extension."""

    media_id: UUID
    extension: str


@dataclass(frozen=True)
class Lease:
    """A cut-out that one worker has leased, as plain values: no transaction stays open for it."""

    cutout_id: UUID
    token: str
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
        .where(
            ProductImageCutout.product_image_id == product_image_id,
            ProductImageCutout.input_hash == input_hash,
            ProductImageCutout.status == CutoutStatus.COMPLETED,
        )
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


def count_available(database: Database, limit: int) -> int:
    """Return how many cut-outs can be leased now, counted up to `limit`."""
    # unscoped: workers make the cut-outs of every tenant
    return leases.count_available(database, select(ProductImageCutout.id).where(_available()), limit)


def lease_next(database: Database, token: str, lease_duration: timedelta) -> Lease | None:
    """Lease the next cut-out to `token`, or return None if there is none.

    A cut-out that was leased `MAX_ATTEMPTS` times without an end fails instead.
    """
    with database.transaction(write=True):
        cutout = leases.lock_next(_select_next(), ProductImageCutout)
        if cutout is None:
            return None
        cutout.leased_at = utc_now()
        if cutout.attempts >= MAX_ATTEMPTS:
            _end(cutout, CutoutStatus.FAILED)
            return None
        cutout.status = CutoutStatus.RUNNING
        cutout.attempts += 1
        leases.acquire(cutout, token, lease_duration)
        return _to_lease(cutout, token)


def renew(database: Database, lease: Lease, lease_duration: timedelta) -> bool:
    """Extend the lease; return whether the cut-out is still leased."""
    return leases.renew(database, ProductImageCutout, _owned_by(lease), lease_duration)


def store_file(storage: Storage, lease: Lease, image: StoredImage) -> UUID:
    """Store the file of a cut-out before a row refers to it, and return its id.

    After a crash, garbage collection deletes the file. A row without its file cannot occur.
    """
    media_id = uuid5(lease.tenant_id, image.content_hash)
    storage.write(media_key(media_id, image.extension), image.data)
    return media_id


def try_complete(database: Database, storage: Storage, lease: Lease, made: MadeCutout) -> bool:
    """Record a cut-out; return False if it is no longer leased, because its photo or region has changed."""
    stored_id = None if made.image is None else store_file(storage, lease, made.image)
    with database.transaction(write=True):
        cutout = leases.lock_leased(ProductImageCutout, _owned_by(lease))
        if cutout is None:
            return False
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
        _end(cutout, CutoutStatus.COMPLETED)
        current_session().flush()
        if made.image is not None:
            sync_media_visibility(cutout.media_id)
    return True


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


def release(database: Database, lease: Lease, *, counts_attempt: bool) -> None:
    """Return a cut-out to the queue, if it is still leased."""
    with database.transaction(write=True):
        cutout = leases.lock_leased(ProductImageCutout, _owned_by(lease))
        if cutout is not None:
            cutout.attempts -= not counts_attempt
            _end(cutout, CutoutStatus.PENDING)


def fail(database: Database, lease: Lease) -> None:
    """Record the failure, if the cut-out is still leased."""
    with database.transaction(write=True):
        cutout = leases.lock_leased(ProductImageCutout, _owned_by(lease))
        if cutout is not None:
            _end(cutout, CutoutStatus.FAILED)


def _available() -> ColumnElement[bool]:
    is_lost = leases.is_expired(ProductImageCutout.lease_expires_at)
    lost = and_(ProductImageCutout.status == CutoutStatus.RUNNING, is_lost)
    return or_(ProductImageCutout.status == CutoutStatus.PENDING, lost)


def _select_next() -> Any:
    """Return the query for the next cut-out: tenants in turn, and the newest request of a tenant."""
    queue = ProductImageCutout
    return leases.select_in_turn(queue, _available(), queue.requested_at.desc(), queue.id.desc())


def _to_lease(cutout: ProductImageCutout, token: str) -> Lease:
    # unscoped: the photo of the leased cut-out
    query = select(ProductImage).where(ProductImage.id == cutout.product_image_id)
    query = query.options(joinedload(ProductImage.media), joinedload(ProductImage.mask_media))
    image = current_session().scalars(query).one()
    return Lease(
        cutout_id=cutout.id,
        token=token,
        tenant_id=cutout.organization_id or cutout.owner_id,
        input_hash=cutout.input_hash,
        photo=_to_file(image.media),
        region=image.region,
        mask=None if image.mask_media is None else _to_file(image.mask_media),
    )


def _to_file(media: MediaResource) -> StoredFile:
    return StoredFile(media.id, media.extension)


def _owned_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        ProductImageCutout.id == lease.cutout_id,
        ProductImageCutout.lease_owner == lease.token,
        ProductImageCutout.input_hash == lease.input_hash,
        ProductImageCutout.status == CutoutStatus.RUNNING,
    )


def _end(cutout: ProductImageCutout, status: CutoutStatus) -> None:
    cutout.status = status
    cutout.lease_owner = cutout.lease_expires_at = None
