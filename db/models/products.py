"""Products and their photos."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    JSON,
    ColumnElement,
    ForeignKey,
    Index,
    String,
    case,
    literal_column,
    select,
    text,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import (
    Labeled,
    Owned,
    sort_indexes,
    tenant_indexes,
    unique_per_tenant,
    utc_now,
)
from db.models.brands import Brand
from db.models.media import MediaResource

# Not `coalesce`: with row-level security, PostgreSQL would not search its index for a position in a list.
_SKU_OR_EMPTY = "(CASE WHEN sku IS NULL THEN '' ELSE sku END)"


class ProductState(StrEnum):
    """The state of a product: being entered, ready for shootings, or archived."""

    DRAFT = "DRAFT"
    READY = "READY"
    ARCHIVED = "ARCHIVED"


class Product(Labeled):
    """A row is an item of a tenant's catalog."""

    __tablename__ = "products"
    __table_args__ = (
        *tenant_indexes("products"),
        *sort_indexes(
            "products", "brand_id", "category", "state", named=True, more={"sku": text(_SKU_OR_EMPTY)}
        ),
        *unique_per_tenant("products", "sku"),
        *unique_per_tenant("products", "external_id", sparse=True),
    )

    sku: Mapped[str | None] = mapped_column(String(80))
    name: Mapped[str] = mapped_column(String(120))
    description: Mapped[str | None] = mapped_column(String(5000))
    category: Mapped[str | None] = mapped_column(String(80))
    gender: Mapped[str | None] = mapped_column(String(20))
    materials: Mapped[str | None] = mapped_column(String(500))
    color: Mapped[str | None] = mapped_column(String(80))
    brand_id: Mapped[UUID | None] = mapped_column(ForeignKey("brands.id", ondelete="SET NULL"), index=True)
    cover_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="SET NULL"), index=True
    )
    state: Mapped[str] = mapped_column(String(20), default=ProductState.READY)
    public: Mapped[bool] = mapped_column(default=False, index=True, sort_order=97)

    brand: Mapped[Brand | None] = relationship(lazy="raise")
    cover_media: Mapped[MediaResource | None] = relationship(lazy="raise")
    images: Mapped[list[ProductImage]] = relationship(
        back_populates="product",
        lazy="raise",
        order_by="ProductImage.position, ProductImage.id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


SKU_OR_EMPTY: ColumnElement[str] = case((Product.sku.is_(None), literal_column("''")), else_=Product.sku)
"""What lists sort by SKU by: the expression of the indexes. Products without a SKU come first."""


class ProductImage(Owned):
    """A row is one photo of a product; `type` is the side that it shows. It is public if its product is."""

    __tablename__ = "product_images"
    internal_columns: ClassVar = frozenset(("source_hash",))
    __table_args__ = tenant_indexes("product_images")

    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.id", ondelete="CASCADE"), index=True)
    media_id: Mapped[UUID] = mapped_column(ForeignKey("media_resources.id", ondelete="RESTRICT"), index=True)
    type: Mapped[str] = mapped_column(String(20))
    # The place among the product's photos, counted from 1 without gaps.
    position: Mapped[int] = mapped_column(default=1)
    alt_text: Mapped[str | None] = mapped_column(String(500))
    # The box around the product (`x`, `y`, `width`, `height` as shares of the photo); None for all of it.
    region: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    mask_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="RESTRICT"), index=True
    )
    # The SHA-256 of the URL that an import fetched the photo from: the next one does not fetch it again.
    source_hash: Mapped[str | None] = mapped_column(String(64))

    product: Mapped[Product] = relationship(back_populates="images", lazy="raise")
    media: Mapped[MediaResource] = relationship(lazy="raise", foreign_keys=media_id)
    mask_media: Mapped[MediaResource | None] = relationship(lazy="raise", foreign_keys=mask_media_id)
    cutout: Mapped[ProductImageCutout | None] = relationship(
        back_populates="image", lazy="raise", cascade="all, delete-orphan", passive_deletes=True
    )

    @hybrid_property
    def public(self) -> bool:
        """Whether all tenants may read the photo. The product must be loaded."""
        return self.product.public

    @public.inplace.expression
    @classmethod
    def _public_expression(cls) -> ColumnElement[bool]:
        # unscoped: only tells whether the product of a photo is public
        product = select(Product.public).where(Product.id == cls.product_id)
        return product.correlate(cls).scalar_subquery()


class CutoutStatus(StrEnum):
    """The progress of a cut-out."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class ProductImageCutout(Owned):
    """A row is the cut-out of a photo, and a queued job until it is made.

    Workers lease pending rows, and running rows whose lease has expired. A change of the photo's region or
    mask makes the row pending again, and a worker that makes the old one loses its lease.
    """

    __tablename__ = "product_image_cutouts"
    __table_args__ = (
        *tenant_indexes("product_image_cutouts"),
        Index("ix_product_image_cutouts_queue", "status", "requested_at", "id"),
    )

    product_image_id: Mapped[UUID] = mapped_column(
        ForeignKey("product_images.id", ondelete="CASCADE"), unique=True
    )
    # A hash of the photo, the region and the mask that the cut-out is made from.
    input_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(20), default=CutoutStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    requested_at: Mapped[datetime] = mapped_column(default=utc_now)
    # The time of the last lease: workers serve the tenants in turn.
    leased_at: Mapped[datetime | None] = mapped_column(index=True)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]
    media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="RESTRICT"), index=True
    )
    method: Mapped[str | None] = mapped_column(String(40))
    confidence: Mapped[float | None]
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    # What the renderer needs besides the file, and the version that made it.
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    renderer_version: Mapped[str | None] = mapped_column(String(40))
    made_at: Mapped[datetime | None]

    image: Mapped[ProductImage] = relationship(back_populates="cutout", lazy="raise")
    media: Mapped[MediaResource | None] = relationship(lazy="raise")

    @hybrid_property
    def public(self) -> bool:
        """Whether all tenants may read the cut-out. The photo and its product must be loaded."""
        return self.image.product.public

    @public.inplace.expression
    @classmethod
    def _public_expression(cls) -> ColumnElement[bool]:
        # unscoped: only tells whether the product of a photo is public
        product = select(Product.public).join(ProductImage, ProductImage.product_id == Product.id)
        return product.where(ProductImage.id == cls.product_image_id).correlate(cls).scalar_subquery()
