"""Create the jobs of the images that imported rows name, in the transaction that writes the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import cast
from uuid import UUID

from sqlalchemy import Table, select

from db.base import new_id, utc_now
from db.fast_path.bulk import insert_new
from db.models.imports import ImportImageStatus, ProductImport, ProductImportImage
from db.models.products import ProductImage
from db.session import current_session
from studio.imports.queue import RowResult
from studio.imports.rows import Row


def hash_source(url: str) -> str:
    """Return the hash of a URL: URLs may contain secrets, so photos do not keep them."""
    return hashlib.sha256(url.encode()).hexdigest()


def create_image_jobs(
    product_import: ProductImport, rows: Sequence[Row], results: Sequence[RowResult]
) -> None:
    """Create the jobs of the images of written rows, and count them in their import.

    An image whose URL an earlier import has fetched for the same product is counted as unchanged at once.
    Nothing is created if the import only validates.
    """
    if product_import.validate_only:
        return
    product_ids = {result.line: result.product_id for result in results}
    named = [
        (row, product_id, ordinal, image)
        for row in rows
        if row.images and (product_id := product_ids.get(row.line)) is not None
        for ordinal, image in enumerate(row.images)
    ]
    if not named:
        return
    known = _find_known({product_id for _, product_id, _, _ in named})
    now = utc_now()
    jobs = [
        {
            "id": new_id(),
            "line": row.line,
            "ordinal": ordinal,
            "product_id": product_id,
            "source": image.source,
            "host": image.host,
            "type": image.type,
            "alt_text": image.alt_text,
        }
        for row, product_id, ordinal, image in named
        if image.host is None or (product_id, hash_source(image.source)) not in known
    ]
    if jobs:
        shared = {
            "import_id": product_import.id,
            "status": ImportImageStatus.PENDING,
            "attempts": 0,
            "available_at": now,
            "created_at": now,
            "updated_at": now,
        }
        insert_new(cast("Table", ProductImportImage.__table__), jobs, shared)
    product_import.image_count += len(named)
    product_import.image_unchanged_count += len(named) - len(jobs)


def _find_known(product_ids: Iterable[UUID]) -> set[tuple[UUID, str]]:
    """Return the hashes of the URLs that imports have fetched photos from, with their products."""
    # unscoped: the photos of products that the running import has written
    query = select(ProductImage.product_id, ProductImage.source_hash)
    query = query.where(ProductImage.product_id.in_(product_ids), ProductImage.source_hash.is_not(None))
    return {(row.product_id, row.source_hash) for row in current_session().execute(query)}
