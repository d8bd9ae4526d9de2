"""How a shot looks outside."""

from marshmallow import fields

from handlers.schemas.fields import Identifier, OwnedSchema


class ShotSchema(OwnedSchema):
    """A shot with the label of its type."""

    shooting_id = Identifier()
    look_id = Identifier()
    shot_type_id = Identifier()
    shot_type = fields.Raw(attribute="shot_type.label")
    status = fields.Raw()
    approved_prediction_id = Identifier()
    rejection_reason = fields.Raw()
    revision_note = fields.Raw()
    notes = fields.Raw()
    generation_id = Identifier()
    predictions_count = fields.Raw()
