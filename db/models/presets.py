"""Shot types, backgrounds and resolutions: public system rows, and rows that tenants add."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Archivable, Publishable, tenant_indexes, unique_per_tenant
from db.models.media import MediaResource


class ShotType(Archivable):
    """A row is a framing and a view angle of an image."""

    __tablename__ = "shot_types"
    __table_args__ = (*tenant_indexes("shot_types"), *unique_per_tenant("shot_types", "slug"))

    name: Mapped[str] = mapped_column(String(120))
    slug: Mapped[str] = mapped_column(String(120))
    label: Mapped[str] = mapped_column(String(120))
    description: Mapped[str | None] = mapped_column(String(2000))
    framing: Mapped[str] = mapped_column(String(20))
    view_angle: Mapped[str] = mapped_column(String(20), default="FRONT")
    default_padding_percent: Mapped[int] = mapped_column(default=8)


class BackgroundPreset(Publishable):
    """A row is a background of images, with the kind of shadow on it."""

    __tablename__ = "background_presets"
    __table_args__ = tenant_indexes("background_presets")

    name: Mapped[str] = mapped_column(String(120))
    kind: Mapped[str] = mapped_column(String(20))
    color: Mapped[str | None] = mapped_column(String(7))
    color_end: Mapped[str | None] = mapped_column(String(7))
    image_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="SET NULL"), index=True
    )
    shadow: Mapped[str] = mapped_column(String(20), default="SOFT")

    image_media: Mapped[MediaResource | None] = relationship(lazy="raise")


class ResolutionPreset(Publishable):
    """A row is an image size in pixels."""

    __tablename__ = "resolution_presets"
    __table_args__ = tenant_indexes("resolution_presets")

    name: Mapped[str] = mapped_column(String(120))
    width: Mapped[int]
    height: Mapped[int]
