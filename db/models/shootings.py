"""Shootings, their looks, and the shots that looks produce, one per shot type."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import JSON, ColumnElement, Dialect, ForeignKey, String, UniqueConstraint, func, select
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from db.base import Base, Labeled, sort_indexes, tenant_indexes, unique_per_tenant
from db.models.brands import Brand
from db.models.generations import Prediction
from db.models.guidelines import Guidelines
from db.models.presets import ShotType
from db.models.product_summaries import summarize_product
from db.models.products import Product
from db.models.styles import Style
from db.models.subjects import Subject


class ShootingPhase(StrEnum):
    """The phase of a shooting; the transitions are in `studio/state_machines.py`."""

    BRIEF = "BRIEF"
    TEST_SHOOTING = "TEST_SHOOTING"
    PRODUCTS_SELECTION = "PRODUCTS_SELECTION"
    AGREEMENT = "AGREEMENT"
    PRODUCTION = "PRODUCTION"
    CLOSED = "CLOSED"


class ShotStatus(StrEnum):
    """The status of a shot; the transitions are in `studio/state_machines.py`."""

    PENDING = "pending"
    GENERATING = "generating"
    PENDING_REVIEW = "pending_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVISION_REQUESTED = "revision_requested"
    EXPORTED = "exported"


class Shooting(Labeled):
    """A row is a project of looks; it holds their counts, so refresh it after a change of looks or shots."""

    __tablename__ = "shootings"
    __table_args__ = (
        *tenant_indexes("shootings"),
        *sort_indexes(
            "shootings", "brand_id", "phase", "archived", named=True, more={"due_date": "due_date"}
        ),
        *unique_per_tenant("shootings", "external_id", sparse=True),
    )

    name: Mapped[str] = mapped_column(String(120))
    description: Mapped[str | None] = mapped_column(String(5000))
    due_date: Mapped[datetime]
    archived: Mapped[bool] = mapped_column(default=False)
    season: Mapped[str | None] = mapped_column(String(80))
    collection: Mapped[str | None] = mapped_column(String(120))
    # Free text from the client; `brand_id` is the reference to a brand.
    brand: Mapped[str | None] = mapped_column(String(120))
    brand_id: Mapped[UUID | None] = mapped_column(ForeignKey("brands.id", ondelete="SET NULL"), index=True)
    default_guidelines_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("guidelines.id", ondelete="RESTRICT"), index=True
    )
    phase: Mapped[str] = mapped_column(String(30), default=ShootingPhase.PRODUCTION)
    require_test_shooting: Mapped[bool] = mapped_column(default=False)
    # Whether the phase TEST_SHOOTING was ever entered, which `require_test_shooting` makes mandatory.
    test_shooting_held: Mapped[bool] = mapped_column(default=False)

    if TYPE_CHECKING:
        looks_count: Mapped[int]
        shot_counts: Mapped[ShotCounts]

    brand_row: Mapped[Brand | None] = relationship(lazy="raise")
    default_guidelines: Mapped[Guidelines | None] = relationship(lazy="raise")
    looks: Mapped[list[Look]] = relationship(
        back_populates="shooting",
        lazy="raise",
        order_by="Look.id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


class LookShotType(Base):
    """A row is a shot type of a look, with its position in the list."""

    __tablename__ = "look_shot_types"

    look_id: Mapped[UUID] = mapped_column(ForeignKey("looks.id", ondelete="CASCADE"), primary_key=True)
    shot_type_id: Mapped[UUID] = mapped_column(
        ForeignKey("shot_types.id", ondelete="RESTRICT"), primary_key=True, index=True
    )
    position: Mapped[int] = mapped_column(default=0)

    shot_type: Mapped[ShotType] = relationship(lazy="raise")


class LookProduct(Base):
    """A row is a further product of a look, with its position in the list."""

    __tablename__ = "look_products"

    look_id: Mapped[UUID] = mapped_column(ForeignKey("looks.id", ondelete="CASCADE"), primary_key=True)
    product_id: Mapped[UUID] = mapped_column(
        ForeignKey("products.id", ondelete="RESTRICT"), primary_key=True, index=True
    )
    position: Mapped[int] = mapped_column(default=0)

    product: Mapped[Product] = relationship(lazy="raise")


class LookGuidelines(Base):
    """A row is a set of guidelines of a look, with its position; earlier ones take precedence."""

    __tablename__ = "look_guidelines"

    look_id: Mapped[UUID] = mapped_column(ForeignKey("looks.id", ondelete="CASCADE"), primary_key=True)
    guidelines_id: Mapped[UUID] = mapped_column(
        ForeignKey("guidelines.id", ondelete="RESTRICT"), primary_key=True, index=True
    )
    position: Mapped[int] = mapped_column(default=0)

    guidelines: Mapped[Guidelines] = relationship(lazy="raise")


class Look(Labeled):
    """A row is one outfit of a shooting.

    `shot_type_ids`, `product_ids` and `guidelines_ids` read and replace the ordered lists. Load their links
    with `selectinload` before reading them.
    """

    __tablename__ = "looks"
    __table_args__ = (*tenant_indexes("looks"), *unique_per_tenant("looks", "external_id", sparse=True))

    shooting_id: Mapped[UUID] = mapped_column(ForeignKey("shootings.id", ondelete="CASCADE"), index=True)
    main_product_id: Mapped[UUID] = mapped_column(ForeignKey("products.id", ondelete="RESTRICT"), index=True)
    subject_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("subjects.id", ondelete="RESTRICT"), index=True
    )
    style_id: Mapped[UUID | None] = mapped_column(ForeignKey("styles.id", ondelete="RESTRICT"), index=True)
    notes: Mapped[str | None] = mapped_column(String(5000))

    if TYPE_CHECKING:
        product: Mapped[dict[str, Any] | None]

    shooting: Mapped[Shooting] = relationship(back_populates="looks", lazy="raise")
    main_product: Mapped[Product] = relationship(lazy="raise")
    subject: Mapped[Subject | None] = relationship(lazy="raise")
    style: Mapped[Style | None] = relationship(lazy="raise")
    shots: Mapped[list[Shot]] = relationship(
        back_populates="look",
        lazy="raise",
        order_by="Shot.id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    shot_type_links: Mapped[list[LookShotType]] = relationship(
        lazy="raise",
        order_by=LookShotType.position,
        collection_class=ordering_list("position"),
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    product_links: Mapped[list[LookProduct]] = relationship(
        lazy="raise",
        order_by=LookProduct.position,
        collection_class=ordering_list("position"),
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    guidelines_links: Mapped[list[LookGuidelines]] = relationship(
        lazy="raise",
        order_by=LookGuidelines.position,
        collection_class=ordering_list("position"),
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    shot_type_ids: AssociationProxy[list[UUID]] = association_proxy(
        "shot_type_links", "shot_type_id", creator=lambda row_id: LookShotType(shot_type_id=row_id)
    )
    product_ids: AssociationProxy[list[UUID]] = association_proxy(
        "product_links", "product_id", creator=lambda row_id: LookProduct(product_id=row_id)
    )
    guidelines_ids: AssociationProxy[list[UUID]] = association_proxy(
        "guidelines_links", "guidelines_id", creator=lambda row_id: LookGuidelines(guidelines_id=row_id)
    )


class Shot(Labeled):
    """A row is one image to deliver for a look; a look has at most one shot per shot type."""

    __tablename__ = "shots"
    __table_args__ = (
        *tenant_indexes("shots"),
        *sort_indexes("shots", "status", "shot_type_id"),
        *unique_per_tenant("shots", "external_id", sparse=True),
        UniqueConstraint("look_id", "shot_type_id"),
    )

    shooting_id: Mapped[UUID] = mapped_column(ForeignKey("shootings.id", ondelete="CASCADE"), index=True)
    look_id: Mapped[UUID] = mapped_column(ForeignKey("looks.id", ondelete="CASCADE"))
    shot_type_id: Mapped[UUID] = mapped_column(ForeignKey("shot_types.id", ondelete="RESTRICT"), index=True)
    status: Mapped[str] = mapped_column(String(20), default=ShotStatus.PENDING)
    # Shots, generations and predictions refer to each other in a circle, so `use_alter` adds these two keys
    # after all tables exist.
    approved_prediction_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("predictions.id", ondelete="SET NULL", use_alter=True), index=True
    )
    generation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("generations.id", ondelete="SET NULL", use_alter=True), index=True
    )
    rejection_reason: Mapped[str | None] = mapped_column(String(2000))
    revision_note: Mapped[str | None] = mapped_column(String(2000))
    notes: Mapped[str | None] = mapped_column(String(5000))

    look: Mapped[Look] = relationship(back_populates="shots", lazy="raise")
    shooting: Mapped[Shooting] = relationship(lazy="raise")
    shot_type: Mapped[ShotType] = relationship(lazy="raise")

    if TYPE_CHECKING:
        predictions_count: Mapped[int]
        product: Mapped[dict[str, Any] | None]


def _count_column(model: type[Look] | type[Shot] | type[Prediction], *conditions: ColumnElement[bool]) -> Any:
    """Return a column property that counts the related rows of another table."""
    counted = select(func.count()).select_from(model).where(*conditions)  # unscoped: belongs to a scoped row
    return column_property(counted.correlate_except(model).scalar_subquery())


Look.product = summarize_product(Look, Look.main_product_id, may_change=True)
Shot.product = summarize_product(Shot, Look.main_product_id, Look.id == Shot.look_id)
Shot.predictions_count = _count_column(Prediction, Prediction.shot_id == Shot.id)
Shooting.looks_count = _count_column(Look, Look.shooting_id == Shooting.id)


class ShotCounts(NamedTuple):
    """How many shots a shooting has: all of them, and those with some statuses."""

    total: int
    pending: int
    in_review: int
    approved: int
    """Exported shots count as approved."""


class _ShotCountsType(TypeDecorator[ShotCounts]):
    """The counts as a JSON array in the order of `ShotCounts`."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: list[int] | None, dialect: Dialect) -> ShotCounts | None:
        return None if value is None else ShotCounts(*value)


def _count_shots() -> Any:
    """Return a column property with the counts, for which the shots are read once."""
    statuses = (
        (ShotStatus.PENDING,),
        (ShotStatus.PENDING_REVIEW,),
        (ShotStatus.APPROVED, ShotStatus.EXPORTED),
    )
    numbers = [func.count(), *(func.count().filter(Shot.status.in_(one)) for one in statuses)]
    counts = func.json_build_array(*numbers, type_=_ShotCountsType())
    # unscoped: belongs to a scoped row
    counted = select(counts).select_from(Shot).where(Shot.shooting_id == Shooting.id)
    return column_property(counted.correlate_except(Shot).scalar_subquery())


Shooting.shot_counts = _count_shots()
