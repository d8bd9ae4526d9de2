"""The field types and the two frames that the schemas of all resources share.

Ids and times become text here, so that an answer is checked as it is sent, without a detour over its bytes.
"""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields


class Identifier(fields.Field):
    """A UUID as text."""

    def _serialize(self, value: Any, _name: str | None, _row: Any, **_: Any) -> str | None:
        return None if value is None else str(value)


class Identifiers(fields.Field):
    """A list of UUIDs as text, in the order of the row."""

    def _serialize(self, value: Any, _name: str | None, _row: Any, **_: Any) -> list[str]:
        return [str(item) for item in value]


class Moment(fields.Field):
    """An aware UTC time in RFC 3339, always with microseconds and `Z`, so that texts sort as times do."""

    def _serialize(self, value: Any, _name: str | None, _row: Any, **_: Any) -> str | None:
        return None if value is None else value.isoformat(timespec="microseconds")[:-6] + "Z"


class IdentifiedSchema(Schema):
    """What every row shows."""

    id = Identifier()
    created_at = Moment()
    updated_at = Moment()


class OwnedSchema(IdentifiedSchema):
    """What every row of a tenant shows."""

    owner_id = Identifier()
    organization_id = Identifier()
