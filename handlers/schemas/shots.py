"""Serialize shots."""

from marshmallow import fields

from handlers.schemas.fields import LabeledSchema, Uuid


class ShotSchema(LabeledSchema):
    """A shot with the label of its type."""

    shooting_id = Uuid()
    look_id = Uuid()
    shot_type_id = Uuid()
    shot_type = fields.Raw(attribute="shot_type.label")
    status = fields.Raw()
    approved_prediction_id = Uuid()
    rejection_reason = fields.Raw()
    revision_note = fields.Raw()
    notes = fields.Raw()
    generation_id = Uuid()
    predictions_count = fields.Raw()
    product = fields.Raw()
