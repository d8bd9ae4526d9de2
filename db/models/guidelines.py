"""Guidelines: the file format, size and set-up that images of a brand or shooting must have."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base, Owned, sort_indexes, tenant_indexes
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.subjects import Subject


class GuidelinesShotType(Base):
    """A row is a shot type that the guidelines require, with its position in the list."""

    __tablename__ = "guidelines_shot_types"

    guidelines_id: Mapped[UUID] = mapped_column(
        ForeignKey("guidelines.id", ondelete="CASCADE"), primary_key=True
    )
    shot_type_id: Mapped[UUID] = mapped_column(
        ForeignKey("shot_types.id", ondelete="RESTRICT"), primary_key=True, index=True
    )
    position: Mapped[int] = mapped_column(default=0)

    shot_type: Mapped[ShotType] = relationship(lazy="raise")


class GuidelinesSubject(Base):
    """A row is a subject that the guidelines allow, with its position in the list."""

    __tablename__ = "guidelines_subjects"

    guidelines_id: Mapped[UUID] = mapped_column(
        ForeignKey("guidelines.id", ondelete="CASCADE"), primary_key=True
    )
    subject_id: Mapped[UUID] = mapped_column(
        ForeignKey("subjects.id", ondelete="RESTRICT"), primary_key=True, index=True
    )
    position: Mapped[int] = mapped_column(default=0)

    subject: Mapped[Subject] = relationship(lazy="raise")


class Guidelines(Owned):
    """A row is one set of guidelines.

    `shot_type_ids` and `subject_ids` read and replace the ordered lists. Load their links with `selectinload`
    before reading them.
    """

    __tablename__ = "guidelines"
    __table_args__ = (*tenant_indexes("guidelines"), *sort_indexes("guidelines", named=True))

    name: Mapped[str] = mapped_column(String(120))
    file_format: Mapped[str] = mapped_column(String(10), default="WEBP")
    background_preset_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("background_presets.id", ondelete="RESTRICT"), index=True
    )
    resolution_preset_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("resolution_presets.id", ondelete="RESTRICT"), index=True
    )
    margin_percent: Mapped[int] = mapped_column(default=8)
    quality: Mapped[int] = mapped_column(default=90)
    notes: Mapped[str | None] = mapped_column(String(5000))
    marketplace: Mapped[str | None] = mapped_column(String(40))

    background_preset: Mapped[BackgroundPreset | None] = relationship(lazy="raise")
    resolution_preset: Mapped[ResolutionPreset | None] = relationship(lazy="raise")
    shot_type_links: Mapped[list[GuidelinesShotType]] = relationship(
        lazy="raise",
        order_by=GuidelinesShotType.position,
        collection_class=ordering_list("position"),
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    subject_links: Mapped[list[GuidelinesSubject]] = relationship(
        lazy="raise",
        order_by=GuidelinesSubject.position,
        collection_class=ordering_list("position"),
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    shot_type_ids: AssociationProxy[list[UUID]] = association_proxy(
        "shot_type_links", "shot_type_id", creator=lambda row_id: GuidelinesShotType(shot_type_id=row_id)
    )
    subject_ids: AssociationProxy[list[UUID]] = association_proxy(
        "subject_links", "subject_id", creator=lambda row_id: GuidelinesSubject(subject_id=row_id)
    )
