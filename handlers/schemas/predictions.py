"""How a picture looks outside: stable addresses that want the token, quality, provenance and review."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from db.models.generations import Prediction
from handlers.current import current_settings
from handlers.schemas.compiled import reader_of
from handlers.schemas.fields import Identifier, Moment, OwnedSchema

THUMBNAIL_WIDTH = 480


class ReviewSchema(Schema):
    """The last decision about a picture."""

    by = Identifier(attribute="reviewed_by")
    at = Moment(attribute="reviewed_at")
    note = fields.Raw(attribute="review_note")


class PredictionSchema(OwnedSchema):
    """A finished picture."""

    generation_id = Identifier()
    shot_id = Identifier()
    index = fields.Raw()
    status = fields.Raw()
    image_url = fields.Function(lambda prediction: image_url_of(prediction))
    thumbnail_url = fields.Function(lambda prediction: f"{image_url_of(prediction)}?width={THUMBNAIL_WIDTH}")
    width = fields.Raw()
    height = fields.Raw()
    content_type = fields.Raw()
    file_size = fields.Raw()
    content_hash = fields.Raw()
    seed = fields.Raw()
    quality = fields.Raw()
    provenance = fields.Raw()
    review = fields.Function(lambda prediction: _review_of(prediction))


def image_url_of(prediction: Prediction) -> str:
    """The address of a picture's bytes."""
    return f"{current_settings().public_url}/api/v1/predictions/{prediction.id}/image"


def _review_of(prediction: Prediction) -> dict[str, Any] | None:
    if prediction.reviewed_at is None:
        return None
    return reader_of(ReviewSchema)(prediction)
