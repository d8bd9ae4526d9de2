"""Garbage collection: delete stored files and rows that nothing refers to.

Deletes expired uploads, exports and imports, images that no row has referred to for 24 hours, and files
without a row that are older than 24 hours (a crash leaves them behind). Younger files are kept: they may
belong to a transaction that has not committed yet. It runs concurrently with requests and can be repeated at
any time.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from db.base import Base
from db.models.account_exports import AccountExport
from db.models.exports import Export
from db.models.imports import ProductImport
from db.models.media import MediaResource, Upload, UploadStatus
from db.session import Database, after_commit, current_session
from studio.infrastructure.storage import Storage, export_folder, import_folder, media_folder, temporary_key

logger = logging.getLogger(__name__)

GRACE_PERIOD = timedelta(hours=24)
"""The lifetime of an upload, and the age from which files that nothing refers to are deleted."""
_BATCH_SIZE = 200


def delete_unreferenced(database: Database, storage: Storage, now: datetime) -> int:
    """Delete what is expired or unreferenced; return the number of deleted rows and files."""
    total = 0
    for delete_batch in (
        # Imports first: their uploads may have expired.
        _delete_expired_imports,
        _delete_expired_uploads,
        _delete_expired_exports,
        _delete_expired_account_exports,
        _delete_orphans,
    ):
        while deleted := _run_in_transaction(database, delete_batch, storage, now):
            total += deleted
    total += _delete_orphan_files(database, storage, now)
    if total:
        logger.info("garbage collection: deleted %d unused uploads, exports, images and files", total)
    return total


def _run_in_transaction(
    database: Database, delete_batch: Callable[[Storage, datetime], int], storage: Storage, now: datetime
) -> int:
    with database.transaction(write=True):
        return delete_batch(storage, now)


def _delete_expired_uploads(storage: Storage, now: datetime) -> int:
    """Delete expired uploads that were not used, or whose imports have expired.

    An image that was used stays: its URL leads to the image that it became.
    """
    unused = or_(Upload.status != UploadStatus.INGESTED, Upload.media_resource_id.is_(None))
    imported = or_(
        exists().where(ProductImport.upload_id == Upload.id),
        exists().where(ProductImport.images_upload_id == Upload.id),
    )
    # unscoped: garbage collection covers all tenants
    expired = select(Upload.id).where(Upload.expires_at <= now, unused, ~imported).limit(_BATCH_SIZE)
    # The condition is repeated because an import may have been created after the subquery was evaluated.
    # unscoped: garbage collection covers all tenants
    statement = delete(Upload).where(Upload.id.in_(expired), ~imported).returning(Upload.id, Upload.file_id)
    deleted = current_session().execute(statement).all()
    for upload_id, file_id in deleted:
        after_commit(partial(storage.delete, temporary_key(upload_id)))
        if file_id is not None:
            after_commit(partial(storage.delete_folder, import_folder(file_id)))
    return len(deleted)


def _delete_expired_imports(storage: Storage, now: datetime) -> int:
    """Delete expired imports with their results. Their uploads can be deleted afterwards."""
    # unscoped: garbage collection covers all tenants
    expired = select(ProductImport.id).where(ProductImport.expires_at <= now).limit(_BATCH_SIZE)
    # unscoped: garbage collection covers all tenants
    statement = delete(ProductImport).where(ProductImport.id.in_(expired)).returning(ProductImport.id)
    deleted_ids = current_session().scalars(statement).all()
    for import_id in deleted_ids:
        after_commit(partial(storage.delete_folder, import_folder(import_id)))
    return len(deleted_ids)


def _delete_expired_exports(storage: Storage, now: datetime) -> int:
    """Delete expired exports with their archives. Runs before the images, which may become unreferenced."""
    # unscoped: garbage collection covers all tenants
    expired = select(Export.id).where(Export.expires_at <= now).limit(_BATCH_SIZE)
    # unscoped: garbage collection covers all tenants
    deleted_ids = (
        current_session().scalars(delete(Export).where(Export.id.in_(expired)).returning(Export.id)).all()
    )
    for export_id in deleted_ids:
        after_commit(partial(storage.delete_folder, export_folder(export_id)))
    return len(deleted_ids)


def _delete_expired_account_exports(storage: Storage, now: datetime) -> int:
    expired = select(AccountExport.id).where(AccountExport.expires_at <= now).limit(_BATCH_SIZE)
    statement = delete(AccountExport).where(AccountExport.id.in_(expired)).returning(AccountExport.id)
    deleted_ids = current_session().scalars(statement).all()
    for export_id in deleted_ids:
        after_commit(partial(storage.delete_folder, export_folder(export_id)))
    return len(deleted_ids)


def _delete_orphans(storage: Storage, now: datetime) -> int:
    """Delete old images that no row refers to, with their files.

    Public images belong to the shared catalog and stay.
    """
    old = (MediaResource.updated_at <= now - GRACE_PERIOD, MediaResource.public.is_(False))
    # unscoped: garbage collection covers all tenants
    orphans = select(MediaResource.id).where(*old, *_unreferenced_conditions()).limit(_BATCH_SIZE)
    # The conditions are repeated because an image may have come into use after the subquery was evaluated.
    # unscoped: garbage collection covers all tenants
    statement = (
        delete(MediaResource)
        .where(MediaResource.id.in_(orphans), *old, *_unreferenced_conditions())
        .returning(MediaResource.id)
    )
    deleted_ids = current_session().scalars(statement).all()
    for resource_id in deleted_ids:
        after_commit(partial(storage.delete_folder, media_folder(resource_id)))
    return len(deleted_ids)


def _unreferenced_conditions() -> list[ColumnElement[bool]]:
    """Return one condition per foreign key to an image. They are read from the schema, so new ones count."""
    referring_columns = [
        foreign_key.parent
        for table in Base.metadata.tables.values()
        for foreign_key in table.foreign_keys
        if foreign_key.column is MediaResource.__table__.c.id and table is not Upload.__table__
    ]
    return [~exists().where(column == MediaResource.id) for column in referring_columns]


def _delete_orphan_files(database: Database, storage: Storage, now: datetime) -> int:
    """Delete old files without a row. A younger file may belong to a running transaction."""
    old_images = _list_old_files(storage, "media", now)
    orphan_images = _list_ids_without_row(database, old_images, MediaResource.id)
    for resource_id in orphan_images:
        storage.delete_folder(media_folder(resource_id))
    orphan_exports = list(_list_old_files(storage, "exports", now))
    for archives in (Export.id, AccountExport.id):
        orphan_exports = _list_ids_without_row(database, orphan_exports, archives)
    for export_id in orphan_exports:
        storage.delete_folder(export_folder(export_id))
    orphan_files = list(_list_old_files(storage, "imports", now))
    for column in (ProductImport.id, Upload.file_id):
        orphan_files = _list_ids_without_row(database, orphan_files, column)
    for file_id in orphan_files:
        storage.delete_folder(import_folder(file_id))
    old_uploads = _list_old_files(storage, "temp", now)
    orphan_uploads = _list_ids_without_row(database, old_uploads, Upload.id)
    for upload_id in orphan_uploads:
        for key in old_uploads[upload_id]:
            storage.delete(key)
    return len(orphan_images) + len(orphan_exports) + len(orphan_files) + len(orphan_uploads)


def _list_old_files(storage: Storage, prefix: str, now: datetime) -> dict[UUID, list[str]]:
    """Return the keys of old files by the id in them, including partial files (`.{id}.{random}`)."""
    keys_by_id: dict[UUID, list[str]] = {}
    for file in storage.list_files(prefix):
        if file.modified_at <= now - GRACE_PERIOD:
            name = file.key.split("/")[1].removeprefix(".")[:36]
            keys_by_id.setdefault(UUID(name), []).append(file.key)
    return keys_by_id


def _list_ids_without_row(
    database: Database, ids: Iterable[UUID], column: InstrumentedAttribute[Any]
) -> list[UUID]:
    sorted_ids, missing = sorted(ids), []
    for start in range(0, len(sorted_ids), _BATCH_SIZE):
        batch = sorted_ids[start : start + _BATCH_SIZE]
        with database.transaction(write=False):
            existing = set(current_session().scalars(select(column).where(column.in_(batch))))
        missing += [row_id for row_id in batch if row_id not in existing]
    return missing
