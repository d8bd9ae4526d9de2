"""Serialize review links, without the token: only the response that creates a link contains it."""

from handlers.schemas.fields import IdentifiedSchema, Timestamp, Uuid


class ReviewLinkSchema(IdentifiedSchema):
    """A review link without its URL, which is a credential."""

    shooting_id = Uuid()
    created_by_id = Uuid()
    expires_at = Timestamp()
