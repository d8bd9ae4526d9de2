"""The queue of imports: lease the next one, renew the lease, record a group of rows, end the import.

The row is the queue (see `studio.leases`). A tenant runs one import at a time, in the order of the requests:
two imports could want the same key. Tenants take turns: a worker gives an import back after some seconds, and
the next one is that of the tenant that has waited longest, so a file of 50,000 rows delays no other tenant.

Knows nothing of files and products.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, exists, func, or_, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from db.base import new_id, utc_now
from db.fast_path.bulk import insert_new
from db.models.imports import ImportStatus, ProductImport, ProductImportResult, ResultStatus
from db.session import Database, current_session
from studio import leases
from studio.imports.create import end_import
from studio.imports.problems import INTERNAL_ERROR, StoredProblem
from studio.imports.reader import Position
from studio.imports.rows import ImportOptions
from studio.webhooks.events import emit_import_event

MAX_ATTEMPTS = 3
"""Attempts without an imported group, after which an import fails."""


@dataclass(frozen=True)
class Lease:
    """An import that one worker has leased, as plain values: no transaction stays open for it."""

    import_id: UUID
    token: str
    owner_id: UUID
    organization_id: UUID | None
    file_id: UUID
    images_file_id: UUID | None
    options: ImportOptions
    validate_only: bool
    start: Position


@dataclass(frozen=True)
class RowResult:
    """The result of one row."""

    line: int
    external_id: str | None
    sku: str | None
    status: ResultStatus
    product_id: UUID | None = None
    problem: StoredProblem | None = None


def count_available(database: Database, limit: int) -> int:
    """Return how many imports can be leased now, counted up to `limit`."""
    # unscoped: workers run the imports of every tenant
    return leases.count_available(database, select(ProductImport.id).where(_available()), limit)


def lease_next(database: Database, token: str, lease_duration: timedelta) -> Lease | None:
    """Lease the next import to `token`, or return None if there is none.

    An import that was leased `MAX_ATTEMPTS` times without progress fails instead.
    """
    try:
        with database.transaction(write=True):
            row = leases.lock_next(_select_next(), ProductImport)
            if row is None:
                return None
            row.leased_at = utc_now()
            if row.attempts >= MAX_ATTEMPTS:
                row.problem = INTERNAL_ERROR
                _end(row, ImportStatus.FAILED)
                return None
            row.status = ImportStatus.RUNNING
            row.attempts += 1
            leases.acquire(row, token, lease_duration)
            return _to_lease(row, token)
    except IntegrityError:
        # Another worker leased the other import of this tenant at the same moment.
        return None


def renew(database: Database, lease: Lease, lease_duration: timedelta) -> bool:
    """Extend the lease; return whether the import is still leased."""
    return leases.renew(database, ProductImport, _owned_by(lease), lease_duration)


def lock_leased(lease: Lease) -> ProductImport | None:
    """Return the leased import, locked, or None if it was canceled or is no longer leased."""
    return leases.lock_leased(ProductImport, _owned_by(lease), key_share=True)


def record_results(
    row: ProductImport, results: list[RowResult], end: Position, lease_duration: timedelta
) -> None:
    """Store the results of a group, and where the next one starts, in the transaction of its products."""
    now = utc_now()
    insert_new(
        cast("Table", ProductImportResult.__table__),
        [
            {
                "id": new_id(),
                "import_id": row.id,
                "line": result.line,
                "external_id": result.external_id,
                "sku": result.sku,
                "status": result.status,
                "product_id": result.product_id,
                "problem": result.problem,
                "created_at": now,
                "updated_at": now,
            }
            for result in results
        ],
    )
    for result in results:
        name = f"{result.status}_count"
        setattr(row, name, getattr(row, name) + 1)
    row.next_offset, row.next_line = end.offset, end.line
    row.attempts = 1
    row.lease_expires_at = now + lease_duration


def record_total_count(database: Database, lease: Lease, count: int) -> None:
    """Record the number of rows in the file, if the import is still leased."""
    with database.transaction(write=True):
        row = lock_leased(lease)
        if row is not None:
            row.total_count = count


def complete_rows(database: Database, lease: Lease) -> bool:
    """Record that all rows were processed, if the import is still leased; return whether it is completed.

    Otherwise the worker that ends its last image completes it.
    """
    with database.transaction(write=True):
        row = lock_leased(lease)
        if row is None:
            return False
        row.rows_completed_at = utc_now()
        row.lease_owner = row.lease_expires_at = None
        return complete_with_images(row)


def complete_with_images(row: ProductImport) -> bool:
    """Complete a locked import whose rows and images have all ended; return whether it is completed."""
    ended = row.image_added_count + row.image_unchanged_count + row.image_failed_count
    if row.rows_completed_at is None or ended < row.image_count:
        return False
    _end(row, ImportStatus.COMPLETED)
    return True


def fail(database: Database, lease: Lease, problem: StoredProblem) -> None:
    """Record the failure if the import is still leased."""
    with database.transaction(write=True):
        row = lock_leased(lease)
        if row is not None:
            row.problem = problem
            _end(row, ImportStatus.FAILED)


def release(database: Database, lease: Lease, *, counts_attempt: bool) -> None:
    """Give an import back, if it is still leased. It stays running, so no other one of the tenant starts."""
    with database.transaction(write=True):
        row = lock_leased(lease)
        if row is not None:
            row.attempts -= not counts_attempt
            row.lease_owner = row.lease_expires_at = None


def _end(row: ProductImport, status: ImportStatus) -> None:
    """End an import and emit its event, the only one of all its rows."""
    end_import(row, status)
    current_session().flush()
    emit_import_event(f"import.{status}", row)


def _available() -> ColumnElement[bool]:
    other = aliased(ProductImport)
    # An earlier one that waits counts, too: another worker may have locked it to lease it at this moment.
    is_earlier = and_(
        other.status == ImportStatus.PENDING,
        tuple_(other.created_at, other.id) < tuple_(ProductImport.created_at, ProductImport.id),
    )
    must_wait = exists().where(
        _tenant(other) == _tenant(ProductImport), or_(other.status == ImportStatus.RUNNING, is_earlier)
    )
    is_free = or_(ProductImport.lease_expires_at.is_(None), leases.is_expired(ProductImport.lease_expires_at))
    has_rows = ProductImport.rows_completed_at.is_(None)
    return or_(
        and_(ProductImport.status == ImportStatus.RUNNING, is_free, has_rows),
        and_(ProductImport.status == ImportStatus.PENDING, ~must_wait),
    )


def _tenant(model: Any) -> ColumnElement[UUID]:
    return func.coalesce(model.organization_id, model.owner_id)


def _select_next() -> Select[ProductImport]:
    """Return the query for the next import: tenants in turn, and the oldest request of a tenant."""
    leased = aliased(ProductImport)
    turns = (
        select(_tenant(leased).label("tenant"), func.max(leased.leased_at).label("turn"))
        .where(leased.status.in_((ImportStatus.PENDING, ImportStatus.RUNNING)))
        .group_by(_tenant(leased))
        .subquery()
    )
    return (
        select(ProductImport)  # unscoped: workers run the imports of every tenant
        .outerjoin(turns, turns.c.tenant == _tenant(ProductImport))
        .where(_available())
        .order_by(turns.c.turn.asc().nulls_first(), ProductImport.created_at, ProductImport.id)
    )


def _owned_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        ProductImport.id == lease.import_id,
        ProductImport.lease_owner == lease.token,
        ProductImport.status == ImportStatus.RUNNING,
    )


def _to_lease(row: ProductImport, token: str) -> Lease:
    return Lease(
        import_id=row.id,
        token=token,
        owner_id=row.owner_id,
        organization_id=row.organization_id,
        file_id=row.file_id,
        images_file_id=row.images_file_id,
        options=ImportOptions(row.format, row.mode, row.match_by, row.column_mapping, row.empty_cells),
        validate_only=row.validate_only,
        start=Position(row.next_offset, row.next_line),
    )
