"""Serialize what API keys use of the contract."""

from typing import Any

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, Timestamp, Uuid


class _Name(fields.Raw):
    """The name of a part; null for the operation itself, which has none."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return value or None


class ApiUsageSchema(IdentifiedSchema):
    """How often an API key used a part of the contract on one day."""

    organization_id = Uuid()
    api_key_id = Uuid()
    day = fields.Raw()
    operation_id = fields.Raw()
    kind = fields.Raw()
    name = _Name()
    is_deprecated = fields.Raw()
    sunset_at = Timestamp()
    replacement = fields.Raw()
    calls = fields.Raw()
