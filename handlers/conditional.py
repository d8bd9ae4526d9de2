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
from db.errors import Stale
from db.tenancy import get_owned
from handlers.answers import encode_json, present, strong_etag

OwnedModel = TypeVar("OwnedModel", bound=Owned)


def listed_tags(header: str) -> list[str]:
    """Return the members of an If-Match or If-None-Match header as written, weak marks included."""
    return [tag for tag in (part.strip() for part in header.split(",")) if tag]


def require_fresh(row: object, schema: type[Schema]) -> None:
    """Raise Stale unless the request's If-Match, if it has one, names the current state of `row`.

    Only strong tags match; a malformed header matches nothing.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return
    if strong_etag(encode_json(present(row, schema))) not in listed_tags(header):
        raise Stale()


def get_for_change(
    model: type[OwnedModel],
    row_id: UUID,
    schema: type[Schema],
    options: Sequence[ORMOption] = (),
    where: Sequence[Any] = (),
) -> OwnedModel:
    """Return the row locked for a change, after If-Match was compared under that lock.

    NotFound and PermissionDenied as `get_owned`; Stale when the caller's tag is not the row's.
    """
    row = get_owned(model, row_id, for_update=True, options=options, where=where)
    require_fresh(row, schema)
    return row


def may_change(
    model: type[Owned], id_name: str, schema: type[Schema], options: Sequence[ORMOption] = ()
) -> Callable[..., None]:
    """Return the look (see `preparing.py`) at the row that `id_name` of the path names, without a lock.

    It raises as `get_for_change`.
    """

    def look(**arguments: Any) -> None:
        require_fresh(get_owned(model, arguments[id_name], options=options), schema)

    return look


def apply_changes(row: object, body: Mapping[str, Any], *names: str) -> None:
    """Set a body's properties on a row: absent is unchanged, null clears. With `names` only these are set."""
    for name, value in body.items():
        if not names or name in names:
            setattr(row, name, value)


def none_match(header: str | None, etag: str | None) -> bool:
    """Return whether If-None-Match says that the caller already has this state (weak comparison)."""
    if header is None or etag is None:
        return False
    if header.strip() == "*":
        return True
    return etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in listed_tags(header))
