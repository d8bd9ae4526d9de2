"""Brands, with the defaults for their shootings and looks."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Owned, sort_indexes, tenant_indexes, unique_per_tenant
from db.models.media import MediaResource


class Brand(Owned):
    """A row is a brand; deleting it leaves its products and shootings without a brand."""

    __tablename__ = "brands"
    __table_args__ = (
        *tenant_indexes("brands"),
        *sort_indexes("brands", named=True),
        *unique_per_tenant("brands", "slug"),
    )

    name: Mapped[str] = mapped_column(String(120))
    slug: Mapped[str] = mapped_column(String(120))
    description: Mapped[str | None] = mapped_column(String(2000))
    website: Mapped[str | None] = mapped_column(String(2048))
    logo_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="SET NULL"), index=True
    )
    default_guidelines_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("guidelines.id", ondelete="RESTRICT"), index=True
    )
    default_style_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("styles.id", ondelete="RESTRICT"), index=True
    )
    default_background_preset_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("background_presets.id", ondelete="RESTRICT"), index=True
    )
    default_resolution_preset_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("resolution_presets.id", ondelete="RESTRICT"), index=True
    )

    logo_media: Mapped[MediaResource | None] = relationship(lazy="raise")
