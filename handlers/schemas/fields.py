"""The field types and the two frames that the schemas of all resources share.

Ids and times become text here, so that an answer is checked as it is sent, without a detour over its bytes.
"""

from __future__ import annotations

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


class Timestamp(fields.Field[Any]):
    """An aware UTC time in RFC 3339, always with microseconds and `Z`, so that texts sort as times do."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if value is None:
            return None
        # A sixth of the time of `isoformat`, but without microseconds where there are none.
        text = orjson.dumps(value, option=orjson.OPT_UTC_Z)[1:-1].decode()
        return text if value.microsecond else f"{text[:-1]}.000000Z"


class MediaUrl(fields.Field[Any]):
    """The stable address of a stored picture, null when there is none."""

    attribute_paths = ("id", "extension")

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else file_url(current_settings().public_url, value.id, value.extension)


class SortedMap(fields.Field[Any]):
    """A JSON object with its names in order: databases order them differently, and a tag is of bytes."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, Any] | None:
        return None if value is None else dict(sorted(value.items()))


class IdentifiedSchema(Schema):
    """What every row shows."""

    id = Uuid()
    created_at = Timestamp()
    updated_at = Timestamp()


class OwnedSchema(IdentifiedSchema):
    """What every row of a tenant shows."""

    owner_id = Uuid()
    organization_id = Uuid()
