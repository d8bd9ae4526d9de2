"""Serialize predictions: URLs of the image, quality, provenance and review."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from db.models.comments import PredictionComment
from db.models.generations import Prediction
from handlers.schemas.fields import IdentifiedSchema, IdUrl, OwnedSchema, Timestamp, Uuid
from handlers.schemas.serializer import get_serializer

THUMBNAIL_WIDTH = 480
_PATH, _IMAGE = "/api/v1/predictions/", "/image"


class ReviewSchema(Schema):
    """The last review of a prediction."""

    by = Uuid(attribute="reviewed_by")
    by_name = fields.Function(lambda prediction: _get_reviewer_name(prediction))
    at = Timestamp(attribute="reviewed_at")
    note = fields.Raw(attribute="review_note")


class PredictionSchema(OwnedSchema):
    """A prediction. Its image URLs are stable and require authentication."""

    generation_id = Uuid()
    shot_id = Uuid()
    index = fields.Raw()
    status = fields.Raw()
    image_url = IdUrl(_PATH, _IMAGE)
    thumbnail_url = IdUrl(_PATH, f"{_IMAGE}?width={THUMBNAIL_WIDTH}")
    width = fields.Raw()
    height = fields.Raw()
    content_type = fields.Raw()
    file_size = fields.Raw()
    content_hash = fields.Raw()
    seed = fields.Raw()
    # Predictions of 0.1.0 have no confidence, and do not say how they were made.
    quality = fields.Function(lambda prediction: {"confidence": None, **prediction.quality})
    provenance = fields.Function(lambda prediction: {"digital_source_type": None, **prediction.provenance})
    compliance = fields.Raw()
    warnings = fields.Raw()
    review = fields.Function(lambda prediction: _serialize_review(prediction))
    product = fields.Raw()


class PredictionShareSchema(IdentifiedSchema):
    """A link that shares a prediction, without its URL, which is a credential."""

    prediction_id = Uuid()
    created_by_id = Uuid()
    expires_at = Timestamp()


class PredictionCommentSchema(IdentifiedSchema):
    """A comment on a prediction."""

    prediction_id = Uuid()
    author_id = Uuid()
    review_link_id = Uuid()
    author_name = fields.Raw()
    text = fields.Raw()
    position = fields.Function(lambda comment: _serialize_position(comment))


class PublicationSchema(Schema):
    """The columns of a publication that its response has; the URL contains a token, which is not stored."""

    published_at = Timestamp(attribute="created_at")


def _serialize_position(comment: PredictionComment) -> dict[str, float] | None:
    if comment.position_x is None or comment.position_y is None:
        return None
    return {"x": comment.position_x, "y": comment.position_y}


def _get_reviewer_name(prediction: Prediction) -> str | None:
    # A process of release 0.2.0 leaves the name of the decision before.
    is_current = prediction.reviewer_named_at == prediction.reviewed_at
    return prediction.reviewed_by_name if is_current else None


def _serialize_review(prediction: Prediction) -> dict[str, Any] | None:
    if prediction.reviewed_at is None:
        return None
    return get_serializer(ReviewSchema)(prediction)
