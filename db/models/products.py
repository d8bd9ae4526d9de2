"""Products and their photos."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKey, String, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Owned, sort_indexes, tenant_indexes, unique_per_tenant
from db.models.brands import Brand
from db.models.media import MediaResource


class ProductState(StrEnum):
    """The state of a product: being entered, ready for shootings, or archived."""

    DRAFT = "DRAFT"
    READY = "READY"
    ARCHIVED = "ARCHIVED"


class Product(Owned):
    """A row is an item of a tenant's catalogue."""

    __tablename__ = "products"
    __table_args__ = (
        *tenant_indexes("products"),
        *sort_indexes("products", "brand_id", "category", "state", named=True),
        *unique_per_tenant("products", "sku"),
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
        order_by="ProductImage.id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


class ProductImage(Owned):
    """A row is one photo of a product; `type` is the side that it shows. It is public if its product is."""

    __tablename__ = "product_images"
    __table_args__ = tenant_indexes("product_images")

    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.id", ondelete="CASCADE"), index=True)
    media_id: Mapped[UUID] = mapped_column(ForeignKey("media_resources.id", ondelete="RESTRICT"), index=True)
    type: Mapped[str] = mapped_column(String(20))

    product: Mapped[Product] = relationship(back_populates="images", lazy="raise")
    media: Mapped[MediaResource] = relationship(lazy="raise")

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
