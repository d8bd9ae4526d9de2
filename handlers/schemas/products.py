"""How products and their photographs look outside."""

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, MediaUrl, OwnedSchema, Uuid


class ProductImageSchema(IdentifiedSchema):
    """A photograph of a product."""

    url = MediaUrl(attribute="media")
    type = fields.Raw()
    width = fields.Raw(attribute="media.width")
    height = fields.Raw(attribute="media.height")


class ProductSchema(OwnedSchema):
    """A product with its photographs, oldest first."""

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
    # Products belong to one customer; the property is there for clients that treat all resources alike.
    public = fields.Constant(False)
