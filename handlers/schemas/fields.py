"""The field types and base classes of the schemas.

Ids and times become text here, so that the data that is validated is the data that is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson
from marshmallow import Schema, fields

from handlers.common.context import current_settings
from studio.media.ingest import file_url


class PreparedField(fields.Field[Any]):
    """A field whose values depend on the settings, which are read once for all rows of a response."""

    def prepare(self) -> Callable[[Any], Any]:
        """Return the function that converts a value, for the running request."""
        raise NotImplementedError

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return self.prepare()(value)


class TextField(fields.Field[Any]):
    """A field that keeps a value that is text already, as most ids and times in lists are."""


class Uuid(TextField):
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


class Timestamp(TextField):
    """An aware UTC time, as `format_timestamp` writes it."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return value if value is None or isinstance(value, str) else format_timestamp(value)


class MediaUrl(PreparedField):
    """The URL of a stored image, null if there is none."""

    attribute_paths = ("id", "extension")

    def prepare(self) -> Callable[[Any], str | None]:
        """Return the function that returns the URL of an image."""
        url = current_settings().public_url
        return lambda image: None if image is None else file_url(url, image.id, image.extension)


class IdUrl(PreparedField):
    """A URL of this server with the id of the row.

    Args:
        before: The path before the id, with a slash at its end.
        after: The URL after the id.
    """

    def __init__(self, before: str, after: str) -> None:
        # Only for output: then another field may have the same attribute.
        super().__init__(attribute="id", dump_only=True)
        self._before, self._after = before, after

    def prepare(self) -> Callable[[Any], str]:
        """Return the function that returns the URL of an id."""
        before, after = current_settings().public_url + self._before, self._after
        return lambda row_id: f"{before}{row_id}{after}"


class SortedMap(fields.Field[Any]):
    """A JSON object with sorted names, because databases return different orders and an ETag hashes bytes."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, Any] | None:
        # Most maps are empty.
        return dict(sorted(value.items())) if value else value


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
