"""Comments on predictions."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Owned, tenant_indexes
from db.models.generations import Prediction


class PredictionComment(Owned):
    """A row is a comment of a person or an API key, in the tenant of its prediction.

    `owner_id` is the owner of the prediction. The author is another column, because the row stays when the
    author's account is deleted. The author of a comment of an API key is the creator of the key. A comment of
    a guest has no author and the id of the guest's review link.
    """

    __tablename__ = "prediction_comments"
    __table_args__ = (
        *tenant_indexes("prediction_comments"),
        Index("ix_prediction_comments_prediction", "prediction_id", "created_at", "id"),
    )

    prediction_id: Mapped[UUID] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"))
    author_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    # No foreign key, because the row stays when the link is deleted.
    review_link_id: Mapped[UUID | None]
    # A copy, because other members cannot read the account of an author who has left the organization.
    author_name: Mapped[str] = mapped_column(String(320))
    text: Mapped[str] = mapped_column(String(2000))
    # The point in the image, as shares of its width and height; both are null or neither.
    position_x: Mapped[float | None]
    position_y: Mapped[float | None]

    prediction: Mapped[Prediction] = relationship(lazy="raise")
