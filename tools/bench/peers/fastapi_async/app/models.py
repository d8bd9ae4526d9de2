"""The database tables."""

from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import JSON, DateTime, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app.config import settings


def now() -> datetime:
    return datetime.now(UTC)


class Records(DeclarativeBase):
    type_annotation_map: ClassVar = {datetime: DateTime(timezone=True)}


class Base(Records):
    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class StoredResponse(Records):
    __tablename__ = "stored_responses"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    body: Mapped[bytes]


class User(Base):
    __tablename__ = "users"

    email: Mapped[str]
    is_active: Mapped[bool]
    is_superuser: Mapped[bool]


class Membership(Base):
    __tablename__ = "memberships"

    organization_id: Mapped[UUID]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    role: Mapped[str]


class MediaResource(Base):
    __tablename__ = "media_resources"

    extension: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]

    @property
    def url(self) -> str:
        return f"{settings.public_url}/api/v1/files/media/{self.id}/file.{self.extension}"


class Product(Base):
    __tablename__ = "products"

    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    organization_id: Mapped[UUID | None]
    sku: Mapped[str | None]
    name: Mapped[str]
    description: Mapped[str | None]
    category: Mapped[str | None]
    gender: Mapped[str | None]
    materials: Mapped[str | None]
    color: Mapped[str | None]
    brand_id: Mapped[UUID | None]
    cover_media_id: Mapped[UUID | None] = mapped_column(ForeignKey("media_resources.id"))
    state: Mapped[str] = mapped_column(default="READY")
    public: Mapped[bool] = mapped_column(default=False)
    external_id: Mapped[str | None]
    labels: Mapped[dict[str, str]] = mapped_column("metadata", JSON, default=dict)

    cover_media: Mapped[MediaResource | None] = relationship()
    images: Mapped[list["ProductImage"]] = relationship(order_by="ProductImage.position")

    @property
    def cover_image(self) -> str | None:
        return self.cover_media.url if self.cover_media else None


class ProductImage(Base):
    __tablename__ = "product_images"

    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.id"))
    media_id: Mapped[UUID] = mapped_column(ForeignKey("media_resources.id"))
    type: Mapped[str]
    position: Mapped[int]
    alt_text: Mapped[str | None]
    region: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    mask_media_id: Mapped[UUID | None] = mapped_column(ForeignKey("media_resources.id"))

    media: Mapped[MediaResource] = relationship(foreign_keys=media_id)
    mask_media: Mapped[MediaResource | None] = relationship(foreign_keys=mask_media_id)

    @property
    def url(self) -> str:
        return self.media.url

    @property
    def mask_url(self) -> str | None:
        return self.mask_media.url if self.mask_media else None

    @property
    def width(self) -> int:
        return self.media.width

    @property
    def height(self) -> int:
        return self.media.height
