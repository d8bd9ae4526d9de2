"""The queue of the images of imports: what is special about its rows, and how a product gets its image.

Imports take turns: the next image belongs to the import that has waited longest since its last lease. The
images of one host that are fetched at the same time are limited, over all processes and tenants: leases take
turns, so that each sees the ones before it.

A transaction that ends an image locks the image, its product, the result of its row and its import, in this
order. The last image of an import completes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import aliased

from db.base import new_id, utc_now
from db.errors import Conflict, NotFound
from db.models.imports import (
    ImportImageStatus,
    ImportStatus,
    ProductImport,
    ProductImportImage,
    ProductImportResult,
)
from db.models.media import MediaResource
from db.models.products import Product, ProductImage
from db.queries.statements import lock_name
from db.session import after_commit, current_session
from studio.catalog.image_limits import require_image_capacity
from studio.imports.create import require_rights
from studio.imports.image_jobs import hash_source
from studio.imports.problems import StoredProblem, build_problem, describe_error
from studio.imports.queue import complete_with_images
from studio.infrastructure.pubsub import IMPORTS
from studio.infrastructure.storage import Storage
from studio.media.ingest import ImageOrigin, store_image
from studio.media.stored_image import StoredImage
from studio.products import product_images
from studio.queue.retries import FETCHED_IMAGES
from studio.queue.row_queue import PENDING, RUNNING, Lease, LeaseLost, RowQueue, lock_next

MAX_IMAGES_PER_HOST = 4
"""The images that all workers together fetch from one host at the same time."""
IMAGE_ERROR = build_problem(500, "internal_error", "The image could not be added")
_LOCK = "images of product imports"


@dataclass(frozen=True, kw_only=True)
class ImageLease(Lease):
    """A leased image."""

    owner_id: UUID
    organization_id: UUID | None
    source: str
    is_url: bool
    archive_id: UUID | None
    """The stored ZIP file of the import."""


def add_image(storage: Storage, lease: ImageLease, image: StoredImage, stored_id: UUID) -> None:
    """Add an image to its product, unless the product has it.

    Args:
        storage: Where its file is.
        lease: The lease.
        image: The image.
        stored_id: The id of its file.

    Raises:
        LeaseLost: The import was canceled, or another worker has taken the image over.
    """
    job = IMAGES.lock(lease)
    try:
        product = _lock_product(lease, job)
        status = _add_to_product(storage, lease, job, product, image, stored_id)
    except (Conflict, NotFound) as error:
        _fail(job, describe_error(error))
    else:
        _end(job, status)


def _is_of_import() -> ColumnElement[bool]:
    return ProductImportImage.import_id == ProductImport.id


def _is_open() -> ColumnElement[bool]:
    """Return the condition that an import waits for its images."""
    return and_(ProductImport.status == ImportStatus.RUNNING, ProductImport.rows_completed_at.is_not(None))


def _can_start() -> ColumnElement[bool]:
    """Return the condition that the import waits for images, and that its host is free."""
    job, fetched = ProductImportImage, aliased(ProductImportImage)
    busy_hosts = (
        select(fetched.host)
        .where(fetched.status == RUNNING, fetched.host.is_not(None), fetched.lease_expires_at >= utc_now())
        .group_by(fetched.host)
        .having(func.count() >= MAX_IMAGES_PER_HOST)
    )
    is_host_free = or_(job.host.is_(None), job.host.not_in(busy_hosts))
    # unscoped: workers run the imports of every tenant
    waiting = select(ProductImport.id).where(_is_of_import(), _is_open()).correlate(ProductImportImage)
    return and_(waiting.exists(), is_host_free)


def _choose() -> ProductImportImage | None:
    # Two transactions at the same time would each see one connection less than there are.
    lock_name(_LOCK)
    available = IMAGES.available()
    job = select(ProductImportImage.id).where(_is_of_import(), available).correlate(ProductImport)
    # unscoped: workers run the imports of every tenant
    imports = (
        select(ProductImport.id)
        .where(job.exists())
        .order_by(ProductImport.leased_at.asc().nulls_first(), ProductImport.id)
    )
    import_id = current_session().scalar(imports.limit(1))
    if import_id is None:
        return None
    jobs = select(ProductImportImage).where(ProductImportImage.import_id == import_id, available)
    return lock_next(
        jobs.order_by(ProductImportImage.available_at, ProductImportImage.id), ProductImportImage
    )


def _requeue(job: ProductImportImage, available_at: datetime | None, _error: StoredProblem | None) -> None:
    job.status, job.available_at = PENDING, available_at or utc_now()


def _take_turn(import_id: UUID) -> None:
    current_session().execute(
        update(ProductImport)  # unscoped: workers run the imports of every tenant
        .where(ProductImport.id == import_id)
        .values(leased_at=utc_now(), updated_at=ProductImport.updated_at)
        .execution_options(synchronize_session=False)
    )


def _take(job: ProductImportImage, token: str) -> ImageLease:
    # unscoped: the import of the leased image
    query = select(ProductImport).where(ProductImport.id == job.import_id)
    product_import = current_session().scalars(query).one()
    _take_turn(product_import.id)
    return ImageLease(
        row_id=job.id,
        token=token,
        owner_id=product_import.owner_id,
        organization_id=product_import.organization_id,
        source=job.source,
        is_url=job.host is not None,
        archive_id=product_import.images_file_id,
    )


def _lock_product(lease: ImageLease, job: ProductImportImage) -> Product:
    """Return the locked product of an image.

    Raises:
        NotFound: It was deleted, or belongs to another tenant by now.
    """
    tenant = (
        (Product.organization_id == lease.organization_id,)
        if lease.organization_id is not None
        else (Product.organization_id.is_(None), Product.owner_id == lease.owner_id)
    )
    # unscoped: a product of the import's tenant; a worker has no caller
    query = select(Product).where(Product.id == job.product_id, *tenant)
    product = current_session().scalar(query.with_for_update())
    if product is None:
        raise NotFound("The product was deleted or moved before its image was added")
    return product


def _add_to_product(
    storage: Storage,
    lease: ImageLease,
    job: ProductImportImage,
    product: Product,
    image: StoredImage,
    stored_id: UUID,
) -> ImportImageStatus:
    """Add an image to a locked product, unless the product has an image with the same content.

    Raises:
        TooManyImages: The product has the maximum number of images.
        PermissionLost: The requester of the import may not write products any more.
        StorageFull: The image does not fit into the storage of the plan.
    """
    source_hash = hash_source(lease.source) if lease.is_url else None
    # unscoped: the photos of a product that was found for the import
    same = select(ProductImage).join(MediaResource, ProductImage.media_id == MediaResource.id)
    same = same.where(ProductImage.product_id == product.id, MediaResource.content_hash == image.content_hash)
    existing = current_session().scalars(same.order_by(ProductImage.id).limit(1)).one_or_none()
    if existing is not None:
        # The latest URL: the next import names it again.
        existing.source_hash = source_hash or existing.source_hash
        job.image_id = existing.id
        return ImportImageStatus.UNCHANGED
    # unscoped: the import of the leased image
    require_rights(
        current_session().scalars(select(ProductImport).where(ProductImport.id == job.import_id)).one()
    )
    require_image_capacity(ProductImage, ProductImage.product_id == product.id)
    origin = ImageOrigin(product_id=product.id)
    media = store_image(
        storage,
        image,
        product.organization_id,
        product.owner_id,
        resource_id=stored_id,
        origin=origin,
        has_storage_limit=True,
    )
    photo = ProductImage(
        id=new_id(),
        owner_id=product.owner_id,
        organization_id=product.organization_id,
        media=media,
        mask_media=None,
        cutout=None,
        type=job.type,
        alt_text=job.alt_text,
        source_hash=source_hash,
    )
    product_images.attach_product_image(product, photo, _find_position(job))
    job.image_id = photo.id
    return ImportImageStatus.ADDED


def _find_position(job: ProductImportImage) -> int | None:
    """Return the position before the later images of the same row that are there already, None if none is."""
    later = ProductImportImage
    added = select(later.image_id).where(
        later.import_id == job.import_id,
        later.line == job.line,
        later.ordinal > job.ordinal,
        later.status == ImportImageStatus.ADDED,
    )
    # unscoped: the photos of a product that was found for the import
    query = select(func.min(ProductImage.position)).where(
        ProductImage.id.in_(added), ProductImage.product_id == job.product_id
    )
    return current_session().scalar(query)


def _fail(job: ProductImportImage, problem: StoredProblem | None) -> None:
    query = select(ProductImportResult).where(
        ProductImportResult.import_id == job.import_id, ProductImportResult.line == job.line
    )
    result = current_session().scalars(query.with_for_update()).one()
    failure = {"image_url": job.source, "problem": problem or IMAGE_ERROR}
    result.image_problems = [*(result.image_problems or ()), failure]
    _end(job, ImportImageStatus.FAILED)


def _end(job: ProductImportImage, status: ImportImageStatus) -> None:
    """End an image, and its import with the last one.

    Raises:
        LeaseLost: The import was canceled: nothing of it may be written any more.
    """
    job.status = status
    job.lease_owner = job.lease_expires_at = None
    current_session().flush()
    # unscoped: workers run the imports of every tenant
    query = select(ProductImport).where(ProductImport.id == job.import_id, _is_open())
    query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    product_import = current_session().scalar(query)
    if product_import is None:
        raise LeaseLost
    name = f"image_{status}_count"
    setattr(product_import, name, getattr(product_import, name) + 1)
    if complete_with_images(product_import):
        # The next import of the tenant may start.
        after_commit(IMPORTS.notify)


IMAGES = RowQueue(
    name="image of an import",
    model=ProductImportImage,
    take=_take,
    end_failed=_fail,
    condition=_can_start,
    choose=_choose,
    requeue=_requeue,
    retries=FETCHED_IMAGES,
    permanent={Conflict: describe_error, NotFound: describe_error},
)
