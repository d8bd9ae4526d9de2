"""Generations, which are also the queue of jobs, their predictions with share links, and callbacks."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    case,
    func,
    select,
)
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship

from db.base import Identified, Owned, sort_indexes, tenant_indexes, utc_now
from db.models.generation_models import GenerationModel
from db.models.media import MediaResource
from db.models.product_summaries import summarize_product


class GenerationStatus(StrEnum):
    """The state of a generation; the transitions are in `studio/state_machines.py`."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELING = "canceling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Generation(Owned):
    """A row is one task that makes predictions; `inputs` is the snapshot of everything it was requested with.

    Workers lease the row: a pending one that `studio/generations/worker/scheduling.py` selects, or a running
    one whose lease has expired.
    """

    __tablename__ = "generations"
    internal_columns: ClassVar = frozenset(
        (
            "lease_owner",
            "lease_expires_at",
            "priority",
            "remote_failures",
            "remote_steps",
            "remote_task_id",
            "revision",
            "subscription_id",
            "trace_context",
        )
    )
    __table_args__ = (
        *tenant_indexes("generations"),
        *sort_indexes("generations", "status", "generation_strategy"),
        Index("ix_generations_product", "product_id", "created_at", "id"),
        Index("ix_generations_queue", "status", "priority", "created_at", "id"),
        Index("ix_generations_age", "status", "created_at", "id"),
        Index("ix_generations_lease", "status", "lease_expires_at"),
        Index("ix_generations_deadline", "status", "deadline_at"),
    )

    shot_id: Mapped[UUID | None] = mapped_column(ForeignKey("shots.id", ondelete="CASCADE"), index=True)
    model_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("generation_models.id", ondelete="RESTRICT"), index=True
    )
    # The prediction that this generation refines. The tables refer to each other, so `use_alter` adds the key
    # after both tables exist.
    source_prediction_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("predictions.id", ondelete="SET NULL", use_alter=True), index=True
    )
    subscription_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("subscriptions.id", ondelete="SET NULL"), index=True
    )
    # What the usage counts for. No foreign keys: usage outlives API keys and products.
    # The account that requested it. No foreign key: the owner changes when the account is deleted, but its
    # pending generations are canceled. Null for generations of release 0.2.0.
    requested_by_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    product_id: Mapped[UUID | None]
    generation_type: Mapped[str] = mapped_column(String(20), default="BASE")
    generation_strategy: Mapped[str] = mapped_column(String(30), default="GENERATE")
    batch_size: Mapped[int] = mapped_column(default=1)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    inputs: Mapped[dict[str, Any]] = mapped_column(default=dict)

    status: Mapped[str] = mapped_column(String(20), default=GenerationStatus.PENDING)
    revision: Mapped[int] = mapped_column(default=0)
    """Increases with every change that clients waiting for the generation are notified of."""
    retry_of_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("generations.id", ondelete="SET NULL"), index=True
    )
    priority: Mapped[int] = mapped_column(default=0)
    progress: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    fallen_back: Mapped[bool] = mapped_column(default=False)
    """Whether the model's fallback provider runs the generation."""
    remote_task_id: Mapped[str | None] = mapped_column(String(200), index=True)
    """The task id at a remote provider. A running row without lease owner is polled at `lease_expires_at`."""
    remote_steps: Mapped[int] = mapped_column(default=0)
    remote_failures: Mapped[int] = mapped_column(default=0)
    """Consecutive polls that failed."""
    started_at: Mapped[datetime | None] = mapped_column(index=True)
    completed_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    cost_credits: Mapped[int] = mapped_column(default=0)
    trace_context: Mapped[str | None] = mapped_column(String(64))
    """The `traceparent` of the request, so that the worker continues its trace (W3C Trace Context)."""

    if TYPE_CHECKING:
        queue_position: Mapped[int | None]
        start_interval: Mapped[float | None]
        product: Mapped[dict[str, Any] | None]

    model: Mapped[GenerationModel | None] = relationship(lazy="raise")
    predictions: Mapped[list[Prediction]] = relationship(
        back_populates="generation",
        lazy="raise",
        order_by="Prediction.index",
        foreign_keys="Prediction.generation_id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


class PredictionStatus(StrEnum):
    """The review status of a prediction."""

    PENDING_REVIEW = "pending_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPORTED = "exported"


class Prediction(Owned):
    """A row is one generated image; its index is unique in its generation, so no retry stores it twice."""

    __tablename__ = "predictions"
    __table_args__ = (
        *tenant_indexes("predictions"),
        *sort_indexes("predictions", "status"),
        UniqueConstraint("generation_id", "index"),
    )

    generation_id: Mapped[UUID] = mapped_column(ForeignKey("generations.id", ondelete="CASCADE"))
    shot_id: Mapped[UUID | None] = mapped_column(ForeignKey("shots.id", ondelete="CASCADE"), index=True)
    media_id: Mapped[UUID] = mapped_column(ForeignKey("media_resources.id", ondelete="RESTRICT"), index=True)
    index: Mapped[int]
    status: Mapped[str] = mapped_column(String(20), default=PredictionStatus.PENDING_REVIEW)
    width: Mapped[int]
    height: Mapped[int]
    content_type: Mapped[str] = mapped_column(String(100))
    file_size: Mapped[int]
    content_hash: Mapped[str] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(BigInteger)
    quality: Mapped[dict[str, Any]] = mapped_column(default=dict)
    provenance: Mapped[dict[str, Any]] = mapped_column(default=dict)
    compliance: Mapped[list[Any]] = mapped_column(default=list)
    """How the image meets each rule of its marketplace; empty without one."""
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    """What is doubtful about the image: values of `PredictionWarning` in the contract."""
    reviewed_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    reviewed_at: Mapped[datetime | None]
    # A copy of the name, which guests have without an account, with the time of the decision that it belongs
    # to: a process of release 0.2.0, which does not know the name, changes only the three other columns.
    reviewed_by_name: Mapped[str | None] = mapped_column(String(320))
    reviewer_named_at: Mapped[datetime | None]
    review_note: Mapped[str | None] = mapped_column(String(2000))

    if TYPE_CHECKING:
        product: Mapped[dict[str, Any] | None]

    generation: Mapped[Generation] = relationship(
        back_populates="predictions", lazy="raise", foreign_keys=[generation_id]
    )
    media: Mapped[MediaResource] = relationship(lazy="raise")


class PredictionShare(Identified):
    """A row is one link that opens the image of a prediction without authentication.

    It ends with the membership that its creator needed to make it. `membership_id` is null where none was
    needed: for a personal prediction, and for a superuser. It also ends with the API key that made it;
    `api_key_id` is null if there was none, and for links that release 0.2.0 made. The token of
    the link is not stored.
    """

    __tablename__ = "prediction_shares"
    __table_args__ = (Index("ix_prediction_shares_prediction", "prediction_id", "created_at", "id"),)

    prediction_id: Mapped[UUID] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"))
    created_by_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    membership_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("memberships.id", ondelete="CASCADE"), index=True
    )
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class PublicationStatus(StrEnum):
    """The progress of the variants of a published image."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class PredictionPublication(Owned):
    """A row is one published prediction, and the job that makes the variants of its image.

    The token of its URL is derived from the id and the server's secret; only the hash of the token is stored.
    """

    __tablename__ = "prediction_publications"
    __table_args__ = (
        *tenant_indexes("prediction_publications"),
        Index("ix_prediction_publications_queue", "status", "requested_at", "id"),
    )

    prediction_id: Mapped[UUID] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), unique=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    status: Mapped[str] = mapped_column(String(20), default=PublicationStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    requested_at: Mapped[datetime] = mapped_column(default=utc_now)
    leased_at: Mapped[datetime | None] = mapped_column(index=True)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_expires_at: Mapped[datetime | None]

    prediction: Mapped[Prediction] = relationship(lazy="raise")


class TaskCallback(Identified):
    """A row is one accepted callback of a provider, kept for a day so that a repetition has no effect."""

    __tablename__ = "task_callbacks"
    __table_args__ = (Index("ix_task_callbacks_age", "created_at"),)

    message_id: Mapped[str] = mapped_column(String(200), unique=True)


_is_pending = Generation.status == GenerationStatus.PENDING
# Both are loaded with the row, and null unless the generation is pending. Their functions run as the system
# role, because row-level security hides the rows of other tenants.

# The position in the queue of all tenants, ordered by priority, time and id.
_position = func.sartiq_queue_position(
    Generation.priority, Generation.created_at, Generation.id, type_=BigInteger()
)
Generation.queue_position = column_property(case((_is_pending, _position)))

# The seconds until the queue starts one more generation, from the last 20 that were completed. While
# generations wait, all slots are busy: the mean duration divided by the number of running ones is the mean
# time between two starts. Null if none was completed. The subquery refers to no row, so the database computes
# it once per statement, and only if a row is pending.
_start_interval = select(func.sartiq_start_interval(type_=Float())).scalar_subquery()
Generation.start_interval = column_property(case((_is_pending, _start_interval)))
Generation.product = summarize_product(Generation, Generation.product_id)
Prediction.product = summarize_product(
    Prediction, Generation.product_id, Generation.id == Prediction.generation_id
)
