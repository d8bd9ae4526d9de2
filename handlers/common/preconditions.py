"""Changing a row only when the caller saw its latest state (RFC 9110, 13), and applying a merge patch.

The tag of a row is the tag of the bytes that GET answers: it needs no column and depends on nobody's token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from flask import request
from marshmallow import Schema
from sqlalchemy.orm.interfaces import ORMOption

from db.base import Owned
from db.errors import PreconditionFailed
from db.tenancy import get_visible
from handlers.common.responses import encode_json, serialize, strong_etag

OwnedModel = TypeVar("OwnedModel", bound=Owned)


def parse_etags(header: str) -> list[str]:
    """Return the members of an If-Match or If-None-Match header as written, weak marks included."""
    return [tag for tag in (part.strip() for part in header.split(",")) if tag]


def require_etag_match(row: object, schema: type[Schema]) -> None:
    """Raise Stale unless the request's If-Match, if it has one, names the current state of `row`.

    Only strong tags match; a malformed header matches nothing.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return
    if strong_etag(encode_json(serialize(row, schema))) not in parse_etags(header):
        raise PreconditionFailed()


def get_for_update(
    model: type[OwnedModel],
    row_id: UUID,
    schema: type[Schema],
    options: Sequence[ORMOption] = (),
    where: Sequence[Any] = (),
) -> OwnedModel:
    """Return the row locked for a change, after If-Match was compared under that lock.

    NotFound and PermissionDenied as `get_owned`; Stale when the caller's tag is not the row's.
    """
    row = get_visible(model, row_id, for_update=True, options=options, where=where)
    require_etag_match(row, schema)
    return row


def precheck_update(
    model: type[Owned], id_name: str, schema: type[Schema], options: Sequence[ORMOption] = ()
) -> Callable[..., None]:
    """Return the look (see `preparing.py`) at the row that `id_name` of the path names, without a lock.

    It raises as `get_for_change`.
    """

    def look(**arguments: Any) -> None:
        require_etag_match(get_visible(model, arguments[id_name], options=options), schema)

    return look


def apply_changes(row: object, body: Mapping[str, Any], *names: str) -> None:
    """Set a body's properties on a row: absent is unchanged, null clears. With `names` only these are set."""
    for name, value in body.items():
        if not names or name in names:
            setattr(row, name, value)


def matches_if_none_match(header: str | None, etag: str | None) -> bool:
    """Return whether If-None-Match says that the caller already has this state (weak comparison)."""
    if header is None or etag is None:
        return False
    if header.strip() == "*":
        return True
    return etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in parse_etags(header))
