"""Serialize products and their photos."""

from __future__ import annotations

from marshmallow import Schema, fields

from db.models.products import ProductImageCutout
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
    box = fields.Function(lambda cutout: _get_box(cutout))
    confidence = fields.Raw()
    warnings = fields.Raw()
    method = fields.Raw()
    created_at = Timestamp(attribute="made_at")


def _get_box(cutout: ProductImageCutout) -> dict[str, float]:
    """Return where the cut-out is in the photo, as shares of its width and height, in the order of names."""
    whole = {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0}
    return dict(sorted((cutout.facts.get("placement") or whole).items()))


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
