"""The queue of the images of imports: lease the next one, add it to its product, record why it failed.

The row is the queue (see `studio.leases`). Imports take turns: the next image belongs to the import that has
waited longest since its last lease. The images of one host that are fetched at the same time are limited,
over all processes and tenants: leases take turns, so that each sees the ones before it.

A transaction that ends an image locks the image, its product, the result of its row and its import, in this
order. The last image of an import completes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid5

from sqlalchemy import ColumnElement, and_, func, or_, select, update

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
from db.session import Database, after_commit, current_session
from studio import leases, product_images
from studio.catalogue.image_limits import require_image_capacity
from studio.imports.image_jobs import hash_source
from studio.imports.problems import StoredProblem, build_problem, describe_error
from studio.imports.queue import complete_with_images
from studio.media.ingest import ImageOrigin, store_image
from studio.media.storage import Storage, media_key
from studio.media.stored_image import StoredImage
from studio.pubsub import IMPORTS

MAX_ATTEMPTS = 4
MAX_IMAGES_PER_HOST = 4
"""The images that all workers together fetch from one host at the same time."""
IMAGE_ERROR = build_problem(500, "internal_error", "The image could not be added")
_LOCK = "images of product imports"


@dataclass(frozen=True)
class Lease:
    """An image that one worker has leased, as plain values: no transaction stays open for it."""

    job_id: UUID
    token: str
    import_id: UUID
    owner_id: UUID
    organization_id: UUID | None
    source: str
    is_url: bool
    archive_id: UUID | None
    """The stored ZIP file of the import."""
    attempts: int


class ImportEnded(Exception):
    """The import was canceled or deleted. The transaction is rolled back."""


def count_available(database: Database, limit: int) -> int:
    """Return how many images can be leased now, counted up to `limit`."""
    with database.transaction(write=False) as reading:
        query = select(ProductImportImage.id).join(ProductImport, _is_of_import())
        query = query.where(_is_open(), _is_available(_find_busy_hosts())).limit(limit)
        return reading.scalar(select(func.count()).select_from(query.subquery())) or 0


def lease_next(database: Database, token: str, lease_duration: timedelta) -> Lease | None:
    """Lease the next image to `token`, or return None if there is none.

    An image that was leased `MAX_ATTEMPTS` times without an end fails instead.
    """
    with database.transaction(write=True):
        # Two transactions at the same time would each see one connection less than there are.
        lock_name(_LOCK)
        is_available = _is_available(_find_busy_hosts())
        jobs = select(ProductImportImage).where(_is_of_import(), is_available)
        # unscoped: workers run the imports of every tenant
        imports = select(ProductImport).where(_is_open(), jobs.exists())
        imports = imports.order_by(ProductImport.leased_at.asc().nulls_first(), ProductImport.id)
        product_import = current_session().scalar(imports.limit(1))
        if product_import is None:
            return None
        of_import = select(ProductImportImage).where(
            ProductImportImage.import_id == product_import.id, is_available
        )
        order = (ProductImportImage.available_at, ProductImportImage.id)
        job = leases.lock_next(of_import.order_by(*order), ProductImportImage)
        if job is None:
            return None
        if job.attempts >= MAX_ATTEMPTS:
            _fail(job, IMAGE_ERROR)
            return None
        job.status = ImportImageStatus.RUNNING
        job.attempts += 1
        leases.acquire(job, token, lease_duration)
        _take_turn(product_import.id)
        return _to_lease(job, product_import, token)


def renew(database: Database, lease: Lease, lease_duration: timedelta) -> bool:
    """Extend the lease; return whether the image is still leased and its import runs."""
    return leases.renew(database, ProductImportImage, _owned_by(lease), lease_duration)


def store_file(storage: Storage, lease: Lease, image: StoredImage) -> UUID:
    """Store the file of an image before a row refers to it, and return its id.

    After a crash, garbage collection deletes the file. A row without its file cannot occur.
    """
    media_id = uuid5(lease.organization_id or lease.owner_id, image.content_hash)
    storage.write(media_key(media_id, image.extension), image.data)
    return media_id


def try_add(database: Database, storage: Storage, lease: Lease, image: StoredImage) -> bool:
    """Add an image to its product, unless the product has it; return False if it is no longer leased.

    Raises:
        ImportEnded: The import was canceled.
    """
    stored_id = store_file(storage, lease, image)
    with database.transaction(write=True):
        job = leases.lock_leased(ProductImportImage, _owned_by(lease))
        if job is None:
            return False
        try:
            product = _lock_product(lease, job)
            status = _add_to_product(storage, lease, job, product, image, stored_id)
        except (Conflict, NotFound) as error:
            _fail(job, describe_error(error))
        else:
            _end(job, status)
    return True


def fail(database: Database, lease: Lease, problem: StoredProblem) -> None:
    """Record why an image cannot be added, if it is still leased.

    Raises:
        ImportEnded: The import was canceled.
    """
    with database.transaction(write=True):
        job = leases.lock_leased(ProductImportImage, _owned_by(lease))
        if job is not None:
            _fail(job, problem)


def release(
    database: Database, lease: Lease, delay: timedelta = timedelta(), *, counts_attempt: bool = True
) -> None:
    """Return an image to the queue, if it is still leased. It can be leased again after a delay."""
    with database.transaction(write=True):
        job = leases.lock_leased(ProductImportImage, _owned_by(lease))
        if job is not None:
            job.status, job.available_at = ImportImageStatus.PENDING, utc_now() + delay
            job.attempts -= not counts_attempt
            job.lease_owner = job.lease_expires_at = None


def _is_of_import() -> ColumnElement[bool]:
    return ProductImportImage.import_id == ProductImport.id


def _is_open() -> ColumnElement[bool]:
    """Return the condition that an import waits for its images."""
    return and_(ProductImport.status == ImportStatus.RUNNING, ProductImport.rows_completed_at.is_not(None))


def _is_available(busy_hosts: list[str]) -> ColumnElement[bool]:
    job = ProductImportImage
    is_due = and_(job.status == ImportImageStatus.PENDING, job.available_at <= utc_now())
    is_lost = and_(job.status == ImportImageStatus.RUNNING, leases.is_expired(job.lease_expires_at))
    is_free = or_(job.host.is_(None), job.host.not_in(busy_hosts))
    return and_(or_(is_due, is_lost), is_free)


def _find_busy_hosts() -> list[str]:
    """Return the hosts from which as many images are fetched as may be."""
    job = ProductImportImage
    query = select(job.host).where(job.status == ImportImageStatus.RUNNING, job.host.is_not(None))
    query = query.where(~leases.is_expired(job.lease_expires_at)).group_by(job.host)
    found = current_session().scalars(query.having(func.count() >= MAX_IMAGES_PER_HOST))
    return [host for host in found if host is not None]


def _take_turn(import_id: UUID) -> None:
    current_session().execute(
        update(ProductImport)  # unscoped: workers run the imports of every tenant
        .where(ProductImport.id == import_id)
        .values(leased_at=utc_now(), updated_at=ProductImport.updated_at)
        .execution_options(synchronize_session=False)
    )


def _to_lease(job: ProductImportImage, product_import: ProductImport, token: str) -> Lease:
    return Lease(
        job_id=job.id,
        token=token,
        import_id=product_import.id,
        owner_id=product_import.owner_id,
        organization_id=product_import.organization_id,
        source=job.source,
        is_url=job.host is not None,
        archive_id=product_import.images_file_id,
        attempts=job.attempts,
    )


def _owned_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        ProductImportImage.id == lease.job_id,
        ProductImportImage.lease_owner == lease.token,
        ProductImportImage.status == ImportImageStatus.RUNNING,
    )


def _lock_product(lease: Lease, job: ProductImportImage) -> Product:
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
    lease: Lease,
    job: ProductImportImage,
    product: Product,
    image: StoredImage,
    stored_id: UUID,
) -> ImportImageStatus:
    """Add an image to a locked product, unless the product has an image with the same content.

    Raises:
        TooManyImages: The product has the maximum number of images.
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
    require_image_capacity(ProductImage, ProductImage.product_id == product.id)
    origin = ImageOrigin(product_id=product.id)
    media = store_image(
        storage, image, product.organization_id, product.owner_id, resource_id=stored_id, origin=origin
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


def _fail(job: ProductImportImage, problem: StoredProblem) -> None:
    query = select(ProductImportResult).where(
        ProductImportResult.import_id == job.import_id, ProductImportResult.line == job.line
    )
    result = current_session().scalars(query.with_for_update()).one()
    result.image_problems = [*(result.image_problems or ()), {"image_url": job.source, "problem": problem}]
    _end(job, ImportImageStatus.FAILED)


def _end(job: ProductImportImage, status: ImportImageStatus) -> None:
    """End an image, and its import with the last one.

    Raises:
        ImportEnded: The import was canceled: nothing of it may be written any more.
    """
    job.status = status
    job.lease_owner = job.lease_expires_at = None
    current_session().flush()
    # unscoped: workers run the imports of every tenant
    query = select(ProductImport).where(ProductImport.id == job.import_id, _is_open())
    query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    product_import = current_session().scalar(query)
    if product_import is None:
        raise ImportEnded
    name = f"image_{status}_count"
    setattr(product_import, name, getattr(product_import, name) + 1)
    if complete_with_images(product_import):
        # The next import of the tenant may start.
        after_commit(IMPORTS.notify)
