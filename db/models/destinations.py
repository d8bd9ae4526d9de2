"""Destinations: storage of customers that exports are delivered to. Their credentials are encrypted."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Identified, Owned, tenant_indexes


class DestinationKind(StrEnum):
    """The protocol of a destination."""

    S3 = "s3"
    HTTPS = "https"


class Destination(Owned):
    """A row is a bucket of an S3-compatible server, or a URL below which files are stored with PUT.

    `url` is the endpoint of the server or the URL. `credentials` is encrypted, see
    `studio.destinations.credentials`; `credentials_key` names the key without revealing it. The other columns
    are null where the kind has no such property.
    """

    __tablename__ = "destinations"
    __table_args__ = (
        *tenant_indexes("destinations"),
        Index("ix_destinations_credentials_key", "credentials_key"),
    )

    name: Mapped[str] = mapped_column(String(120))
    kind: Mapped[str] = mapped_column(String(10))
    url: Mapped[str] = mapped_column(String(2048))
    region: Mapped[str | None] = mapped_column(String(64))
    bucket: Mapped[str | None] = mapped_column(String(63))
    prefix: Mapped[str | None] = mapped_column(String(500))
    path_style: Mapped[bool | None]
    access_key_hint: Mapped[str | None] = mapped_column(String(4))
    header_name: Mapped[str | None] = mapped_column(String(64))
    credentials: Mapped[bytes | None] = mapped_column(LargeBinary)
    credentials_key: Mapped[str | None] = mapped_column(String(16))


class DeliveryState(StrEnum):
    """The progress of the delivery of an export or of one of its files."""

    PENDING = "pending"
    RUNNING = "running"
    DELIVERED = "delivered"
    FAILED = "failed"


class ExportDelivery(Identified):
    """A row is a file of an export that is delivered to the destination of the export, and its log.

    Ids grow in the order of the delivery. Lock the export before changing it. It is never `running`.
    """

    __tablename__ = "export_deliveries"
    __table_args__ = (Index("ix_export_deliveries_export", "export_id", "created_at", "id"),)

    export_id: Mapped[UUID] = mapped_column(ForeignKey("exports.id", ondelete="CASCADE"))
    file_name: Mapped[str] = mapped_column(String(200))
    file_size: Mapped[int]
    status: Mapped[str] = mapped_column(String(20), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    last_status_code: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(String(30))
    delivered_at: Mapped[datetime | None]
