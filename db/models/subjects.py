"""Subjects: the people who wear the products, with a base image per shot type."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Archivable, Publishable, tenant_indexes, unique_per_tenant
from db.models.media import MediaResource
from db.models.presets import ShotType


class Subject(Archivable):
    """A row is a person that images show, real or generated."""

    __tablename__ = "subjects"
    __table_args__ = (*tenant_indexes("subjects"), *unique_per_tenant("subjects", "slug"))

    name: Mapped[str] = mapped_column(String(120))
    surname: Mapped[str | None] = mapped_column(String(120))
    slug: Mapped[str] = mapped_column(String(120))
    description: Mapped[str | None] = mapped_column(String(2000))
    age_class: Mapped[str | None] = mapped_column(String(20))
    body_type: Mapped[str | None] = mapped_column(String(80))
    gender: Mapped[str | None] = mapped_column(String(20))
    eye_color: Mapped[str | None] = mapped_column(String(80))
    hair_color: Mapped[str | None] = mapped_column(String(80))
    cover_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media_resources.id", ondelete="SET NULL"), index=True
    )

    cover_media: Mapped[MediaResource | None] = relationship(lazy="raise")
    base_images: Mapped[list[SubjectBaseImage]] = relationship(
        back_populates="subject",
        lazy="raise",
        order_by="SubjectBaseImage.id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


class SubjectBaseImage(Publishable):
    """A row is an image of a subject for one shot type; it is public if its subject is."""

    __tablename__ = "subject_base_images"
    __table_args__ = tenant_indexes("subject_base_images")

    subject_id: Mapped[UUID] = mapped_column(ForeignKey("subjects.id", ondelete="CASCADE"), index=True)
    shot_type_id: Mapped[UUID] = mapped_column(ForeignKey("shot_types.id", ondelete="RESTRICT"), index=True)
    media_id: Mapped[UUID] = mapped_column(ForeignKey("media_resources.id", ondelete="RESTRICT"), index=True)

    subject: Mapped[Subject] = relationship(back_populates="base_images", lazy="raise")
    shot_type: Mapped[ShotType] = relationship(lazy="raise")
    media: Mapped[MediaResource] = relationship(lazy="raise")
