"""Stored images, and the temporary uploads that become images."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import (
    TRIGGER_MAINTAINED,
    Base,
    Owned,
    Publishable,
    tenant_indexes,
    unique_per_tenant,
)


class MediaResource(Publishable):
    """A row is one stored image of a tenant; two tenants with the same image have a row each."""

    __tablename__ = "media_resources"
    __table_args__ = (
        *tenant_indexes("media_resources"),
        *unique_per_tenant("media_resources", "content_hash"),
    )

    # CASCADE, because files alone must not prevent the deletion of an organization.
    organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), sort_order=-1
    )
    # What made the image and what it shows first, for the usage. No foreign keys: usage outlives these rows.
    model_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    product_id: Mapped[UUID | None]
    content_hash: Mapped[str] = mapped_column(String(64))
    extension: Mapped[str] = mapped_column(String(8))
    content_type: Mapped[str] = mapped_column(String(100))
    file_size: Mapped[int]
    # The size of its other widths and formats, which garbage collection finds.
    variant_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    width: Mapped[int]
    height: Mapped[int]
    has_alpha: Mapped[bool] = mapped_column(default=False)
    dominant_color: Mapped[str | None] = mapped_column(String(7))


class MediaCheck(Base):
    """A row is an image that may have no reference any more, or a new one: garbage collection looks at it.

    Triggers write it, so it has no foreign key: deleting an image must not wait for them.
    """

    __tablename__ = "media_checks"
    __table_args__ = ({"info": {TRIGGER_MAINTAINED: True}},)

    entry: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    media_id: Mapped[UUID]
    due_at: Mapped[datetime] = mapped_column(index=True)


class UploadStatus(StrEnum):
    """The progress of an upload: announced, received, or stored as an image."""

    PENDING = "pending"
    RECEIVED = "received"
    INGESTED = "ingested"


class Upload(Owned):
    """A row is a presigned upload, a temporary file that expires; `size` is what the client announced.

    A file that is no image stays as long as an import refers to the upload.
    """

    __tablename__ = "uploads"
    __table_args__ = tenant_indexes("uploads")

    organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), sort_order=-1
    )
    # The API key that created it. No foreign key: its URL works no more when the key was deleted.
    api_key_id: Mapped[UUID | None]
    filename: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(100))
    size: Mapped[int | None]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[str] = mapped_column(String(20), default=UploadStatus.PENDING)
    media_resource_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="SET NULL"), index=True
    )
    # The size of the file that has arrived, until it becomes an image of its own.
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    # The stored file of an upload that is no image, and its SHA-256.
    file_id: Mapped[UUID | None]
    file_hash: Mapped[str | None] = mapped_column(String(64))

    media_resource: Mapped[MediaResource | None] = relationship(lazy="raise")
