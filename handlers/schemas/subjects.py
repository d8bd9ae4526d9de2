"""Serialize subjects and their base images."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, MediaUrl, OwnedSchema, Uuid


class BaseImageSchema(IdentifiedSchema):
    """An image of a subject for a shot type."""

    image_url = MediaUrl(attribute="media")
    shot_type_id = Uuid()
    shot_type_label = fields.Raw(attribute="shot_type.label")


class SubjectSchema(OwnedSchema):
    """A subject with its base images, oldest first."""

    name = fields.Raw()
    surname = fields.Raw()
    slug = fields.Raw()
    description = fields.Raw()
    age_class = fields.Raw()
    body_type = fields.Raw()
    gender = fields.Raw()
    eye_color = fields.Raw()
    hair_color = fields.Raw()
    cover_image = MediaUrl(attribute="cover_media")
    public = fields.Raw()
    base_images = fields.List(fields.Nested(BaseImageSchema))
