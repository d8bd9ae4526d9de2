"""Imports of products: the job with its position in the file, and one result per row of the file."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Identified, Owned, sort_indexes, tenant_indexes, utc_now
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
    After the last row, the import runs until its images are added (`ProductImportImage`).
    """

    __tablename__ = "product_imports"
    internal_columns: ClassVar = frozenset(
        ("attempts", "lease_owner", "lease_expires_at", "leased_at", "rows_completed_at")
    )
    __table_args__ = (
        *tenant_indexes("product_imports"),
        *sort_indexes("product_imports", "status"),
        Index("ix_product_imports_queue", "status", "created_at", "id"),
        # A tenant runs one import at a time: two could want the same key. NULLs are distinct.
        Index("uq_product_imports_running", "organization_id", unique=True, postgresql_where=IS_RUNNING),
        Index(
            "uq_product_imports_running_owner", "owner_id", unique=True, postgresql_where=IS_RUNNING_OF_OWNER
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
    # Who requested it. No foreign keys: an import whose account or API key was deleted fails. Null for the
    # imports of release 0.2.0.
    requested_by_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
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
    # The upload of the ZIP file with images, and the file as it was stored. Without a foreign
    # key: garbage collection keeps the upload with the import.
    images_upload_id: Mapped[UUID | None] = mapped_column(index=True)
    images_file_id: Mapped[UUID | None]
    images_file_hash: Mapped[str | None] = mapped_column(String(64))
    # From then on workers lease the images of the import, not the import.
    rows_completed_at: Mapped[datetime | None]
    image_count: Mapped[int] = mapped_column(default=0)
    image_added_count: Mapped[int] = mapped_column(default=0)
    image_unchanged_count: Mapped[int] = mapped_column(default=0)
    image_failed_count: Mapped[int] = mapped_column(default=0)
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    # Attempts since the last group that was imported.
    attempts: Mapped[int] = mapped_column(default=0)
    # The time of the last lease: workers serve the tenants in turn.
    leased_at: Mapped[datetime | None] = mapped_column(index=True)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)

    upload: Mapped[Upload] = relationship(lazy="raise", foreign_keys=upload_id)


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
    # Why images of the row were not added: objects with `image_url` and `problem`.
    image_problems: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))


class ImportImageStatus(StrEnum):
    """The progress of an image of an import."""

    PENDING = "pending"
    RUNNING = "running"
    ADDED = "added"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class ProductImportImage(Identified):
    """A row is an image that a row of an import file names, and a queued job until it is added or has failed.

    Workers lease pending rows from `available_at` on, and running rows whose lease has expired, of imports
    whose rows were all processed.
    """

    __tablename__ = "product_import_images"
    __table_args__ = (
        Index("ix_product_import_images_queue", "import_id", "status", "available_at", "id"),
        Index("uq_product_import_images_row", "import_id", "line", "ordinal", unique=True),
        # Images that are being fetched, to limit the connections to each host.
        Index("ix_product_import_images_running", "host", postgresql_where=IS_RUNNING),
    )

    import_id: Mapped[UUID] = mapped_column(ForeignKey("product_imports.id", ondelete="CASCADE"))
    line: Mapped[int]
    # The place among the images of the row.
    ordinal: Mapped[int]
    # The product may be deleted meanwhile, and so may its image: neither is a foreign key.
    product_id: Mapped[UUID]
    image_id: Mapped[UUID | None]
    # A URL, or the name of an entry of the ZIP file, which has no host.
    source: Mapped[str] = mapped_column(String(2048))
    host: Mapped[str | None] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(20))
    alt_text: Mapped[str | None] = mapped_column(String(500))
    status: Mapped[str] = mapped_column(String(20), default=ImportImageStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    available_at: Mapped[datetime] = mapped_column(default=utc_now)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]
