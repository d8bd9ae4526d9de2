"""Serialize products and their photos."""

from marshmallow import Schema, fields

from handlers.schemas.fields import IdentifiedSchema, LabeledSchema, MediaUrl, SortedMap, Timestamp, Uuid


class ProductImageSchema(IdentifiedSchema):
    """A photo of a product."""

    url = MediaUrl(attribute="media")
    type = fields.Raw()
    width = fields.Raw(attribute="media.width")
    height = fields.Raw(attribute="media.height")
    position = fields.Raw()
    alt_text = fields.Raw()
    region = SortedMap()
    mask_url = MediaUrl(attribute="mask_media")


class ProductImageCutoutSchema(Schema):
    """The cut-out of a photo."""

    url = MediaUrl(attribute="media")
    width = fields.Raw(attribute="media.width")
    height = fields.Raw(attribute="media.height")
    box = SortedMap()
    confidence = fields.Raw()
    warnings = fields.Raw()
    method = fields.Raw()
    created_at = Timestamp(attribute="made_at")


class ProductSchema(LabeledSchema):
    """A product with its photos in their order."""

    sku = fields.Raw()
    name = fields.Raw()
    description = fields.Raw()
    category = fields.Raw()
    gender = fields.Raw()
    materials = fields.Raw()
    color = fields.Raw()
    brand_id = Uuid()
    cover_image = MediaUrl(attribute="cover_media")
    images = fields.List(fields.Nested(ProductImageSchema))
    state = fields.Raw()
    public = fields.Raw()
