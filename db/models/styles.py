"""Styles: the color grading of images."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Archivable, tenant_indexes, unique_per_tenant
from db.models.media import MediaResource


class Style(Archivable):
    """A row is a grading of light and color.

    Contrast, saturation and temperature range from -100 to 100; 0 changes nothing.
    """

    __tablename__ = "styles"
    __table_args__ = (*tenant_indexes("styles"), *unique_per_tenant("styles", "slug"))

    name: Mapped[str] = mapped_column(String(120))
    slug: Mapped[str] = mapped_column(String(120))
    description: Mapped[str | None] = mapped_column(String(2000))
    prompt: Mapped[str | None] = mapped_column(String(4000))
    tone: Mapped[str | None] = mapped_column(String(200))
    lighting: Mapped[str | None] = mapped_column(String(200))
    contrast: Mapped[int] = mapped_column(default=0)
    saturation: Mapped[int] = mapped_column(default=0)
    temperature: Mapped[int] = mapped_column(default=0)
    lora_weight: Mapped[float] = mapped_column(default=0.8)
    cover_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="SET NULL"), index=True
    )

    cover_media: Mapped[MediaResource | None] = relationship(lazy="raise")
