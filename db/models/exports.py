"""Exports: archives of approved predictions. A pending export is a queued job; its items are the contents."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base, Owned, sort_indexes, tenant_indexes
from db.models.media import MediaResource


class ExportStatus(StrEnum):
    """The progress of an export."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class ExportItem(Base):
    """A row is one image of an export, as it was when the export was requested.

    The foreign key to the image protects the file from garbage collection. The prediction may be reopened or
    deleted meanwhile, so `prediction_id` is no foreign key. `facts` is the entry in the manifest.
    """

    __tablename__ = "export_items"

    export_id: Mapped[UUID] = mapped_column(ForeignKey("exports.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    media_id: Mapped[UUID] = mapped_column(ForeignKey("media_resources.id", ondelete="RESTRICT"), index=True)
    prediction_id: Mapped[UUID] = mapped_column(index=True)
    file_name: Mapped[str] = mapped_column(String(200))
    content_hash: Mapped[str] = mapped_column(String(64))
    file_size: Mapped[int]
    facts: Mapped[dict[str, Any]]

    media: Mapped[MediaResource] = relationship(lazy="raise")


class Export(Owned):
    """A row is one requested archive of a shooting, and belongs to the shooting's tenant.

    Workers lease the oldest pending row, and running rows whose lease has expired. A completed row with a
    destination is leased again, with the same columns, for its delivery (`studio.destinations`).
    """

    __tablename__ = "exports"
    internal_columns: ClassVar = frozenset(("lease_owner", "lease_expires_at", "leased_at"))
    __table_args__ = (
        *tenant_indexes("exports"),
        *sort_indexes("exports", "status"),
        Index("ix_exports_queue", "status", "created_at", "id"),
        Index("ix_exports_delivery_queue", "delivery_status", "delivery_next_attempt_at", "id"),
    )

    shooting_id: Mapped[UUID] = mapped_column(ForeignKey("shootings.id", ondelete="CASCADE"), index=True)
    # The name at the time of the request, for the archive's file name.
    shooting_name: Mapped[str] = mapped_column(String(120))
    name_template: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(20), default=ExportStatus.PENDING)
    progress: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]
    predictions_count: Mapped[int]
    file_size: Mapped[int | None] = mapped_column(BigInteger)
    content_hash: Mapped[str | None] = mapped_column(String(64))
    completed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
    error: Mapped[dict[str, Any] | None]
    # An unfinished delivery keeps its destination from being deleted (`studio.destinations.changes`).
    destination_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("destinations.id", ondelete="SET NULL"), index=True
    )
    # A `DeliveryState`; null without a destination.
    delivery_status: Mapped[str | None] = mapped_column(String(20))
    # Attempts since a file was last delivered.
    delivery_attempts: Mapped[int] = mapped_column(default=0)
    delivery_next_attempt_at: Mapped[datetime | None]
    delivery_error: Mapped[str | None] = mapped_column(String(30))
    delivery_ended_at: Mapped[datetime | None]
    leased_at: Mapped[datetime | None] = mapped_column(index=True)

    items: Mapped[list[ExportItem]] = relationship(
        lazy="raise", order_by=ExportItem.position, cascade="all, delete-orphan", passive_deletes=True
    )
