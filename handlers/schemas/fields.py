"""The field types and base classes of the schemas.

Ids and times become text here, so that the data that is validated is the data that is sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from marshmallow import Schema, fields

from handlers.common.context import current_settings
from studio.media.ingest import file_url


class Uuid(fields.Field[Any]):
    """A UUID as text."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else str(value)


class UuidList(fields.Field[Any]):
    """A list of UUIDs as text, in the order of the row."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> list[str]:
        return [str(item) for item in value]


def format_timestamp(value: datetime) -> str:
    """Return an aware UTC time in RFC 3339 with microseconds and `Z`, so that texts sort like times."""
    # Six times as fast as `isoformat`, but it omits microseconds that are zero.
    text = orjson.dumps(value, option=orjson.OPT_UTC_Z)[1:-1].decode()
    return text if value.microsecond else f"{text[:-1]}.000000Z"


class Timestamp(fields.Field[Any]):
    """An aware UTC time, as `format_timestamp` writes it."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format_timestamp(value)


class MediaUrl(fields.Field[Any]):
    """The URL of a stored image, null if there is none."""

    attribute_paths = ("id", "extension")

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else file_url(current_settings().public_url, value.id, value.extension)


class SortedMap(fields.Field[Any]):
    """A JSON object with sorted names, because databases return different orders and an ETag hashes bytes."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, Any] | None:
        return None if value is None else dict(sorted(value.items()))


class IdentifiedSchema(Schema):
    """The properties of all resources."""

    id = Uuid()
    created_at = Timestamp()
    updated_at = Timestamp()


class OwnedSchema(IdentifiedSchema):
    """The properties of all resources of a tenant."""

    owner_id = Uuid()
    organization_id = Uuid()


class LabeledSchema(OwnedSchema):
    """The properties of all resources that have the client's own keys."""

    external_id = fields.Raw()
    metadata = SortedMap(attribute="custom_metadata")
