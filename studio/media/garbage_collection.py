"""Removes what nobody needs any more: uploads that were never used, exports whose time is over, pictures that
no row refers to, and files without a row, which a crash leaves behind. Runs beside the requests, at any time,
as often as one likes.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from db.base import Base
from db.models.exports import Export
from db.models.media import MediaResource, Upload, UploadStatus
from db.session import Database, after_commit, current_session
from studio.media.storage import Storage, export_folder, media_folder, temporary_key

logger = logging.getLogger(__name__)

TEMPORARY_LIFETIME = timedelta(hours=24)
_BATCH_SIZE = 200


def delete_unreferenced(database: Database, storage: Storage, now: datetime) -> int:
    """Removes what has been useless for 24 hours; the number of rows and files that went."""
    removed = 0
    for step in (_delete_expired_uploads, _delete_expired_exports, _delete_orphans):
        while found := _in_transaction(database, step, storage, now):
            removed += found
    removed += _delete_orphan_files(database, storage, now)
    if removed:
        logger.info("removed %d unused uploads, exports, pictures and files", removed)
    return removed


def _in_transaction(
    database: Database, step: Callable[[Storage, datetime], int], storage: Storage, now: datetime
) -> int:
    with database.transaction(write=True):
        return step(storage, now)


def _delete_expired_uploads(storage: Storage, now: datetime) -> int:
    """Uploads whose time is over. A used one stays: its address leads to the picture it became."""
    unused = or_(Upload.status != UploadStatus.INGESTED, Upload.media_resource_id.is_(None))
    # unscoped: time is over for everybody
    expired = select(Upload.id).where(Upload.expires_at <= now, unused).limit(_BATCH_SIZE)
    # unscoped: the same
    removed = (
        current_session().scalars(delete(Upload).where(Upload.id.in_(expired)).returning(Upload.id)).all()
    )
    for upload_id in removed:
        after_commit(partial(storage.delete, temporary_key(upload_id)))
    return len(removed)


def _delete_expired_exports(storage: Storage, now: datetime) -> int:
    """Exports that ended long enough ago, with their archives; the pictures of an orphan may then go too."""
    # unscoped: time is over for everybody
    expired = select(Export.id).where(Export.expires_at <= now).limit(_BATCH_SIZE)
    # unscoped: the same
    removed = (
        current_session().scalars(delete(Export).where(Export.id.in_(expired)).returning(Export.id)).all()
    )
    for export_id in removed:
        after_commit(partial(storage.delete_folder, export_folder(export_id)))
    return len(removed)


def _delete_orphans(storage: Storage, now: datetime) -> int:
    """Pictures that no row has referred to for a day. Public ones belong to the product itself and stay."""
    old = (MediaResource.updated_at <= now - TEMPORARY_LIFETIME, MediaResource.public.is_(False))
    # unscoped: nobody's row refers to them
    orphans = select(MediaResource.id).where(*old, *_unreferenced_conditions()).limit(_BATCH_SIZE)
    # unscoped: the same, asked again in case one of them came into use
    statement = (
        delete(MediaResource)
        .where(MediaResource.id.in_(orphans), *old, *_unreferenced_conditions())
        .returning(MediaResource.id)
    )
    removed = current_session().scalars(statement).all()
    for resource_id in removed:
        after_commit(partial(storage.delete_folder, media_folder(resource_id)))
    return len(removed)


def _unreferenced_conditions() -> list[ColumnElement[bool]]:
    """One condition for each column of the schema that can refer to a picture; a new one counts too."""
    referring = [
        foreign_key.parent
        for table in Base.metadata.tables.values()
        for foreign_key in table.foreign_keys
        if foreign_key.column is MediaResource.__table__.c.id and table is not Upload.__table__
    ]
    return [~exists().where(column == MediaResource.id) for column in referring]


def _delete_orphan_files(database: Database, storage: Storage, now: datetime) -> int:
    """Files whose row is gone or never came to be. A younger file may belong to a running transaction."""
    pictures = _list_old_files(storage, "media", now)
    lost_pictures = _list_ids_without_row(database, pictures, MediaResource.id)
    for resource_id in lost_pictures:
        storage.delete_folder(media_folder(resource_id))
    lost_exports = _list_ids_without_row(database, _list_old_files(storage, "exports", now), Export.id)
    for export_id in lost_exports:
        storage.delete_folder(export_folder(export_id))
    uploads = _list_old_files(storage, "temp", now)
    lost_uploads = _list_ids_without_row(database, uploads, Upload.id)
    for upload_id in lost_uploads:
        for key in uploads[upload_id]:
            storage.delete(key)
    return len(lost_pictures) + len(lost_exports) + len(lost_uploads)


def _list_old_files(storage: Storage, prefix: str, now: datetime) -> dict[UUID, list[str]]:
    """The keys of old files by the id in them; half-written ones (`.{id}.{random}`) count as whole."""
    found: dict[UUID, list[str]] = {}
    for file in storage.list_files(prefix):
        if file.modified_at <= now - TEMPORARY_LIFETIME:
            name = file.key.split("/")[1].removeprefix(".")[:36]
            found.setdefault(UUID(name), []).append(file.key)
    return found


def _list_ids_without_row(
    database: Database, ids: Iterable[UUID], column: InstrumentedAttribute[UUID]
) -> list[UUID]:
    wanted, lost = sorted(ids), []
    for start in range(0, len(wanted), _BATCH_SIZE):
        some = wanted[start : start + _BATCH_SIZE]
        with database.transaction(write=False):
            known = set(current_session().scalars(select(column).where(column.in_(some))))
        lost += [row_id for row_id in some if row_id not in known]
    return lost
