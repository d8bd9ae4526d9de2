"""The queue of imports: what is special about its rows, and the results of a group of rows.

A tenant runs one import at a time, in the order of the requests: two imports could want the same key. A
worker gives an import back after some seconds, so a file of 50,000 rows delays no other tenant.

Knows nothing of files and products.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, exists, func, or_, tuple_
from sqlalchemy.orm import aliased

from db.base import new_id, utc_now
from db.errors import NotFound
from db.fast_path.bulk import insert_new
from db.models.imports import ImportStatus, ProductImport, ProductImportResult, ResultStatus
from db.session import Database, current_session
from studio.imports.create import PermissionLost, end_import
from studio.imports.problems import (
    FILE_MISSING,
    INTERNAL_ERROR,
    ImportFileError,
    StoredProblem,
    describe_error,
)
from studio.imports.reader import Position
from studio.imports.rows import ImportOptions
from studio.queue.row_queue import Lease, RowQueue
from studio.webhooks.events import emit_import_event


@dataclass(frozen=True, kw_only=True)
class ImportLease(Lease):
    """A leased import."""

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
                "line": result.line,
                "external_id": result.external_id,
                "sku": result.sku,
                "status": result.status,
                "product_id": result.product_id,
                "problem": result.problem,
            }
            for result in results
        ],
        {"import_id": row.id, "created_at": now, "updated_at": now},
    )
    for status, count in Counter(result.status for result in results).items():
        name = f"{status}_count"
        setattr(row, name, getattr(row, name) + count)
    row.next_offset, row.next_line = end.offset, end.line
    # Only attempts without an imported group are limited: a large file may outlive many workers.
    row.attempts = 1
    row.lease_expires_at = now + lease_duration


def record_total_count(database: Database, lease: ImportLease, count: int) -> None:
    """Record the number of rows in the file.

    Raises:
        LeaseLost: The import was canceled or belongs to another worker.
    """
    with database.transaction(write=True):
        IMPORTS.lock(lease).total_count = count


def complete_rows(lease: ImportLease) -> None:
    """Record that all rows were processed. The worker that ends the last image completes the import.

    Raises:
        LeaseLost: The import was canceled or belongs to another worker.
    """
    row = IMPORTS.lock(lease)
    row.rows_completed_at = utc_now()
    row.lease_owner = row.lease_expires_at = None
    complete_with_images(row)


def complete_with_images(row: ProductImport) -> bool:
    """Complete a locked import whose rows and images have all ended; return whether it is completed."""
    ended = row.image_added_count + row.image_unchanged_count + row.image_failed_count
    if row.rows_completed_at is None or ended < row.image_count:
        return False
    _end(row, ImportStatus.COMPLETED)
    return True


def _end(row: ProductImport, status: ImportStatus) -> None:
    """End an import and emit its event, the only one of all its rows."""
    end_import(row, status)
    current_session().flush()
    emit_import_event(f"import.{status}", row)


def _fail(row: ProductImport, problem: StoredProblem | None) -> None:
    row.problem = problem or INTERNAL_ERROR
    _end(row, ImportStatus.FAILED)


def _is_next_of_tenant() -> ColumnElement[bool]:
    other = aliased(ProductImport)
    # An earlier one that waits counts, too: another worker may have locked it to lease it at this moment.
    is_earlier = and_(
        other.status == ImportStatus.PENDING,
        tuple_(other.created_at, other.id) < tuple_(ProductImport.created_at, ProductImport.id),
    )
    must_wait = exists().where(
        _tenant(other) == _tenant(ProductImport), or_(other.status == ImportStatus.RUNNING, is_earlier)
    )
    has_rows = ProductImport.rows_completed_at.is_(None)
    return and_(has_rows, or_(ProductImport.status == ImportStatus.RUNNING, ~must_wait))


def _tenant(model: Any) -> ColumnElement[UUID]:
    return func.coalesce(model.organization_id, model.owner_id)


def _take(row: ProductImport, token: str) -> ImportLease:
    return ImportLease(
        row_id=row.id,
        token=token,
        owner_id=row.owner_id,
        organization_id=row.organization_id,
        file_id=row.file_id,
        images_file_id=row.images_file_id,
        options=ImportOptions(row.format, row.mode, row.match_by, row.column_mapping, row.empty_cells),
        validate_only=row.validate_only,
        start=Position(row.next_offset, row.next_line),
    )


IMPORTS = RowQueue(
    name="import",
    model=ProductImport,
    take=_take,
    end_failed=_fail,
    order=lambda: (ProductImport.created_at.asc(), ProductImport.id.asc()),
    condition=_is_next_of_tenant,
    # It stays running, so no other one of the tenant starts.
    requeue=lambda _row, _available_at, _error: None,
    permanent={
        ImportFileError: lambda error: error.problem,
        NotFound: lambda _error: FILE_MISSING,
        PermissionLost: describe_error,
    },
    key_share=True,
)
