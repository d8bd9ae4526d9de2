"""Serialize products and their photos."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, MediaUrl, OwnedSchema, Uuid


class ProductImageSchema(IdentifiedSchema):
    """A photo of a product."""

    url = MediaUrl(attribute="media")
    type = fields.Raw()
    width = fields.Raw(attribute="media.width")
    height = fields.Raw(attribute="media.height")


class ProductSchema(OwnedSchema):
    """A product with its photos, oldest first."""

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
