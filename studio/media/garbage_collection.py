"""Garbage collection: delete stored files and rows that nothing refers to.

Deletes expired uploads, exports and imports, images that no row has referred to for 24 hours, and files
without a row that are older than 24 hours (a crash leaves them behind). Younger files are kept: they may
belong to a transaction that has not committed yet. It runs concurrently with requests and can be repeated at
any time.

Triggers record which images may have lost their last reference (`MediaCheck`). For what they have not seen, a
run also looks at a bounded part of the files and of the rows of images, in constant memory, and stores where
the next one continues.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Interval,
    Uuid,
    any_,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from db.base import Base
from db.errors import NotFound
from db.models.account_exports import AccountExport
from db.models.exports import Export
from db.models.imports import ProductImport
from db.models.media import MediaCheck, MediaResource, Upload, UploadStatus
from db.session import Database, after_commit, current_session
from studio.infrastructure.storage import (
    Storage,
    StoredFile,
    export_folder,
    import_folder,
    media_folder,
    temporary_key,
)

logger = logging.getLogger(__name__)

GRACE_PERIOD = timedelta(hours=24)
"""The lifetime of an upload, and the age from which files that nothing refers to are deleted."""
_BATCH_SIZE = 200
MIN_ROWS = 20_000
"""How many rows of images one run looks at, unless a week would not suffice for all of them."""
RUNS_PER_WEEK = 7 * 24
MAX_FILES = 200_000
"""How many files of a folder one run looks at; the next run continues there."""
PAGE_FILES = 1_000
"""How many files are in memory, and looked up with one query."""
SAVED_FILES = 20_000
"""After so many files the position is stored. A divisor of `MAX_FILES`, and a multiple of `PAGE_FILES`."""
_OWNERS: dict[str, tuple[InstrumentedAttribute[Any], ...]] = {
    "media": (MediaResource.id,),
    "exports": (Export.id, AccountExport.id),
    "imports": (ProductImport.id, Upload.file_id),
    "temp": (Upload.id,),
}
"""The folders of files, and the columns whose rows the ids in their keys belong to."""


def delete_unreferenced(database: Database, storage: Storage, now: datetime) -> int:
    """Delete what is expired or unreferenced; return the number of deleted rows and files."""
    total = 0
    for delete_batch in (
        # Imports first: their uploads may have expired.
        _delete_expired_imports,
        _delete_expired_uploads,
        _delete_expired_exports,
        _delete_expired_account_exports,
    ):
        while deleted := _run_in_transaction(database, delete_batch, storage, now):
            total += deleted
    total += _delete_checked(database, storage, now)
    total += _delete_orphans(database, storage, now)
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


def _delete_checked(database: Database, storage: Storage, now: datetime) -> int:
    """Delete the images without a reference of all checks that are due."""
    total, has_more = 0, True
    while has_more:
        with database.transaction(write=True) as session:
            due = select(MediaCheck.entry).where(MediaCheck.due_at <= now).order_by(MediaCheck.due_at)
            due = due.limit(_BATCH_SIZE).with_for_update(skip_locked=True)
            checks = delete(MediaCheck).where(MediaCheck.entry.in_(due)).returning(MediaCheck.media_id)
            ids = set(session.scalars(checks))
            total += _delete_orphans_of([MediaResource.id.in_(ids)], storage, now)
            # unscoped: garbage collection covers all tenants
            young = select(
                MediaResource.id, MediaResource.updated_at + literal(GRACE_PERIOD, Interval)
            ).where(MediaResource.id.in_(ids), MediaResource.updated_at > now - GRACE_PERIOD)
            session.execute(insert(MediaCheck).from_select(["media_id", "due_at"], young))
            has_more = bool(ids)
    return total


def _delete_orphans(database: Database, storage: Storage, now: datetime) -> int:
    """Delete old images that no row refers to, with their files, of the next part of the table.

    All images are looked at each hour up to `MIN_ROWS`, and within a week if there are more.
    """
    position = _read_position(storage, "rows")
    after = (MediaResource.id > UUID(position),) if position else ()
    with database.transaction(write=False) as reading:
        estimate = "SELECT reltuples FROM pg_class WHERE oid = to_regclass(:name)"
        rows = reading.scalar(text(estimate), {"name": MediaResource.__tablename__}) or 0
        count = max(MIN_ROWS, int(rows / RUNS_PER_WEEK) + 1)
        # unscoped: garbage collection covers all tenants
        ids = select(MediaResource.id).where(*after).order_by(MediaResource.id)
        end = reading.scalar(ids.offset(count - 1).limit(1))
    part = after if end is None else (*after, MediaResource.id <= end)
    total = 0
    while deleted := _run_in_transaction(database, partial(_delete_orphans_of, part), storage, now):
        total += deleted
    if end is not None or position:
        _write_position(storage, "rows", "" if end is None else str(end))
    return total


def _delete_orphans_of(part: Sequence[ColumnElement[bool]], storage: Storage, now: datetime) -> int:
    """Delete a batch of a part. Public images belong to the shared catalog and stay."""
    old = (*part, MediaResource.updated_at <= now - GRACE_PERIOD, MediaResource.public.is_(False))
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
    return [~exists().where(column == MediaResource.id) for column in list_referring_columns()]


def list_referring_columns() -> list[Column[Any]]:
    """Return the columns that refer to images. They are read from the schema, so new ones count."""
    return [
        foreign_key.parent
        for table in Base.metadata.tables.values()
        for foreign_key in table.foreign_keys
        if foreign_key.column is MediaResource.__table__.c.id and table is not Upload.__table__
    ]


def _delete_orphan_files(database: Database, storage: Storage, now: datetime) -> int:
    """Delete old files without a row, of a part of each folder.

    A younger file may belong to a running transaction.
    """
    return sum(_delete_part(database, storage, folder, columns, now) for folder, columns in _OWNERS.items())


def _delete_part(
    database: Database,
    storage: Storage,
    folder: str,
    columns: Sequence[InstrumentedAttribute[Any]],
    now: datetime,
) -> int:
    """Delete the files without a row of the next part of a folder."""
    total = read = 0
    sizes: dict[UUID, int] = {}
    files = islice(storage.list_files(folder, _read_position(storage, folder)), MAX_FILES)
    while page := list(islice(files, PAGE_FILES)):
        orphans = _list_old_files(page, now)
        for owner in columns:
            orphans = _keep_without_row(database, orphans, owner)
        for row_id, keys in orphans.items():
            _delete_files(storage, folder, row_id, keys)
        if folder == "media":
            _record_variant_sizes(database, sizes, page)
        total, read = total + len(orphans), read + len(page)
        if read % SAVED_FILES == 0:
            # A run that is killed is continued here, so a part that takes too long still makes progress.
            _write_position(storage, folder, page[-1].key)
    if read < MAX_FILES:
        _write_position(storage, folder, "")
    _store_variant_sizes(database, sizes)
    return total


def _record_variant_sizes(database: Database, sizes: dict[UUID, int], page: Sequence[StoredFile]) -> None:
    """Add the sizes of variants, and store those of all images but the last, which may go on."""
    for file in page:
        resource_id, _, name = file.key.removeprefix("media/").partition("/")
        size = file.size if name.startswith("variants/") else 0
        sizes[UUID(resource_id)] = sizes.get(UUID(resource_id), 0) + size
    last_id = next(reversed(sizes))
    last_size = sizes.pop(last_id)
    _store_variant_sizes(database, sizes)
    sizes.clear()
    sizes[last_id] = last_size


def _store_variant_sizes(database: Database, sizes: Mapping[UUID, int]) -> None:
    """Store the sizes of the variants of images, which count for the storage of a plan."""
    if not sizes:
        return
    found = (
        func.unnest(literal(list(sizes), ARRAY(Uuid)), literal(list(sizes.values()), ARRAY(BigInteger)))
        .table_valued(column("id", Uuid), column("size", BigInteger), name="found")
        .render_derived()
    )
    with database.transaction(write=True) as session:
        # unscoped: garbage collection covers all tenants
        change = update(MediaResource).where(
            MediaResource.id == found.c.id, MediaResource.variant_bytes != found.c.size
        )
        # Clients must not see a new `updated_at`.
        session.execute(
            change.values(variant_bytes=found.c.size, updated_at=MediaResource.updated_at).execution_options(
                synchronize_session=False
            )
        )


def _delete_files(storage: Storage, folder: str, row_id: UUID, keys: Iterable[str]) -> None:
    if folder != "temp":
        storage.delete_folder(f"{folder}/{row_id}")
        return
    # Uploads have no folders of their own.
    for key in keys:
        storage.delete(key)


def _list_old_files(files: Iterable[StoredFile], now: datetime) -> dict[UUID, list[str]]:
    """Return the keys of old files by the id in them, including partial files (`.{id}.{random}`)."""
    keys_by_id: dict[UUID, list[str]] = {}
    for file in files:
        if file.modified_at <= now - GRACE_PERIOD:
            name = file.key.split("/")[1].removeprefix(".")[:36]
            keys_by_id.setdefault(UUID(name), []).append(file.key)
    return keys_by_id


def _keep_without_row(
    database: Database, keys_by_id: dict[UUID, list[str]], column: InstrumentedAttribute[Any]
) -> dict[UUID, list[str]]:
    if not keys_by_id:
        return {}
    with database.transaction(write=False):
        existing = set(
            current_session().scalars(
                select(column).where(column == any_(literal(list(keys_by_id), ARRAY(Uuid))))
            )
        )
    return {row_id: keys for row_id, keys in keys_by_id.items() if row_id not in existing}


def _position_key(subject: str) -> str:
    return f"maintenance/garbage-collection.{subject}"


def _read_position(storage: Storage, subject: str) -> str:
    """Return where the last run ended; an empty string is the start."""
    try:
        return storage.read(_position_key(subject)).decode()
    except NotFound:
        return ""


def _write_position(storage: Storage, subject: str, position: str) -> None:
    # Beside the files, because it is about them: a restored backup starts from the beginning.
    if position:
        storage.write(_position_key(subject), position.encode())
    else:
        storage.delete(_position_key(subject))
