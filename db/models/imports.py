"""Imports of products: the job with its position in the file, and one result per row of the file."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Identified, Owned, sort_indexes, tenant_indexes
from db.models.media import Upload

IS_RUNNING = text("status = 'running'")
IS_RUNNING_OF_OWNER = text("status = 'running' AND organization_id IS NULL")


class ImportStatus(StrEnum):
    """The progress of an import."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class ProductImport(Owned):
    """A row is one import of a file, and a queued job until it ends.

    Workers lease pending rows, and running rows that have no lease or whose lease has expired. The position
    is written in the transaction that imports a group of rows, so each row of the file is imported once.
    """

    __tablename__ = "product_imports"
    internal_columns: ClassVar = frozenset(("attempts", "lease_owner", "lease_expires_at", "leased_at"))
    __table_args__ = (
        *tenant_indexes("product_imports"),
        *sort_indexes("product_imports", "status"),
        Index("ix_product_imports_queue", "status", "created_at", "id"),
        # A tenant runs one import at a time: two could want the same key. NULLs are distinct.
        Index(
            "uq_product_imports_running",
            "organization_id",
            unique=True,
            sqlite_where=IS_RUNNING,
            postgresql_where=IS_RUNNING,
        ),
        Index(
            "uq_product_imports_running_owner",
            "owner_id",
            unique=True,
            sqlite_where=IS_RUNNING_OF_OWNER,
            postgresql_where=IS_RUNNING_OF_OWNER,
        ),
    )

    # CASCADE, because an import alone must not prevent the deletion of an organization.
    organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), sort_order=-1
    )
    upload_id: Mapped[UUID] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    # The stored file. Its content never changes: bytes that are sent again are another file.
    file_id: Mapped[UUID]
    file_hash: Mapped[str] = mapped_column(String(64))
    format: Mapped[str] = mapped_column(String(10))
    mode: Mapped[str] = mapped_column(String(10))
    match_by: Mapped[str] = mapped_column(String(20))
    column_mapping: Mapped[dict[str, Any]]
    empty_cells: Mapped[str] = mapped_column(String(10))
    validate_only: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(String(20), default=ImportStatus.PENDING)
    # The byte at which the next row starts and the lines before it; 0 until the first group.
    next_offset: Mapped[int] = mapped_column(BigInteger, default=0)
    next_line: Mapped[int] = mapped_column(default=0)
    total_count: Mapped[int | None]
    created_count: Mapped[int] = mapped_column(default=0)
    updated_count: Mapped[int] = mapped_column(default=0)
    unchanged_count: Mapped[int] = mapped_column(default=0)
    failed_count: Mapped[int] = mapped_column(default=0)
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    # Attempts since the last group that was imported.
    attempts: Mapped[int] = mapped_column(default=0)
    # The time of the last lease: workers serve the tenants in turn.
    leased_at: Mapped[datetime | None] = mapped_column(index=True)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)

    upload: Mapped[Upload] = relationship(lazy="raise")


class ResultStatus(StrEnum):
    """What was done with a row of the file."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class ProductImportResult(Identified):
    """A row is the result of one row of the file, and belongs to the import's tenant.

    The product may be deleted meanwhile, so `product_id` is no foreign key.
    """

    __tablename__ = "product_import_results"
    __table_args__ = (
        Index("ix_product_import_results_import", "import_id", "created_at", "id"),
        Index("ix_product_import_results_status", "import_id", "status", "created_at", "id"),
    )

    import_id: Mapped[UUID] = mapped_column(ForeignKey("product_imports.id", ondelete="CASCADE"))
    line: Mapped[int]
    external_id: Mapped[str | None] = mapped_column(String(128))
    sku: Mapped[str | None] = mapped_column(String(80))
    status: Mapped[str] = mapped_column(String(20))
    product_id: Mapped[UUID | None]
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
