"""Compare preconditions (RFC 9110, section 13) and apply merge patches (RFC 7396).

The ETag of a row is a hash of the bytes that GET returns. It needs no column and is the same for each caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar, cast
from uuid import UUID

from marshmallow import Schema
from sqlalchemy.orm.interfaces import ORMOption
from werkzeug.http import parse_range_header

from db.base import Labeled, Owned
from db.errors import PreconditionFailed
from db.fast_path.entities import EntityLoader
from db.session import find_event_loop_session
from db.tenancy import get_visible, load_visible
from handlers.common.context import current_request
from handlers.common.responses import encode_json, serialize, strong_etag
from handlers.contract.errors import RangeNotSatisfiable
from handlers.schemas.serializer import list_attribute_paths
from studio.catalog.custom_metadata import merge_metadata

OwnedModel = TypeVar("OwnedModel", bound=Owned)


# An item of a batch has a condition of its own, or none: the header of the request is not about the item.
_item_condition: ContextVar[tuple[str | None] | None] = ContextVar("item_condition", default=None)


@contextmanager
def if_match_context(etag: str | None) -> Iterator[None]:
    """Use this value instead of the If-Match header within the block; None for no condition."""
    token = _item_condition.set((etag,))
    try:
        yield
    finally:
        _item_condition.reset(token)


def parse_etags(header: str) -> list[str]:
    """Return the entity tags of an If-Match or If-None-Match header as written, with their weak marks."""
    return [etag for etag in (part.strip() for part in header.split(",")) if etag]


def find_range(size: int, etag: str) -> tuple[int, int] | None:
    """Return the first byte and the end of the range of a file that the request wants, None for all of it.

    Several ranges, other units and malformed headers are ignored, and so is a range of another version
    (`If-Range`).

    Raises:
        RangeNotSatisfiable: It starts after the end of the file.
    """
    request = current_request()
    header, condition = request.find_header(b"range"), request.find_header(b"if-range")
    if header is None or request.method != "GET" or condition not in (None, etag):
        return None
    wanted = parse_range_header(header)
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return None
    found = wanted.range_for_length(size)
    if found is None:
        raise RangeNotSatisfiable(size)
    return found


def require_etag_match(row: object, schema: type[Schema]) -> None:
    """Compare the If-Match header of the request, if there is one, with a row.

    Only strong tags match (RFC 9110, section 13.1.1); a malformed header matches nothing.

    Raises:
        PreconditionFailed: The header does not contain the ETag of the row.
    """
    item_condition = _item_condition.get()
    header = current_request().find_header(b"if-match") if item_condition is None else item_condition[0]
    if header is None or header.strip() == "*":
        return
    etags = parse_etags(header)
    if strong_etag(encode_json(serialize(row, schema))) not in etags:
        raise PreconditionFailed(_describe_malformed(etags))


def require_put_preconditions(row: object | None, schema: type[Schema]) -> None:
    """Compare the preconditions of a PUT that creates or replaces a row (RFC 9110, section 13.2.2).

    Args:
        row: The row that exists; None if the request would create it.
        schema: The schema that GET serializes the row with.

    Raises:
        PreconditionFailed: If-Match names no current version, or If-None-Match names one.
    """
    if row is None:
        if current_request().find_header(b"if-match") is not None:
            raise PreconditionFailed("There is no such resource, so it has no ETag: omit If-Match")
        return
    require_etag_match(row, schema)
    header = current_request().find_header(b"if-none-match")
    if header is None:
        return
    if matches_if_none_match(header, strong_etag(encode_json(serialize(row, schema)))):
        raise PreconditionFailed("The resource exists: omit If-None-Match to replace it")


def _describe_malformed(etags: list[str]) -> str | None:
    """Return why the tags of an If-Match header can never match, or None if they are strong ETags."""
    if any(etag.startswith("W/") for etag in etags):
        return "If-Match compares strong ETags only: send the ETag without W/"
    if not all(etag.startswith('"') and etag.endswith('"') for etag in etags):
        return "An ETag in If-Match has quotation marks: send it as the ETag header has it"
    return None


def get_for_update(
    model: type[OwnedModel],
    row_id: UUID,
    schema: type[Schema],
    options: Sequence[ORMOption] = (),
    where: Sequence[Any] = (),
) -> OwnedModel:
    """Return a row locked for an update. If-Match is compared after the row is locked.

    Raises:
        NotFound, PermissionDenied: As `db.tenancy.get_visible`.
        PreconditionFailed: If-Match does not contain the ETag of the row.
    """
    session = find_event_loop_session()
    if session is None or where:
        row = get_visible(model, row_id, for_update=True, options=options, where=where)
    else:
        loader = _build_loader(model, schema)
        row = load_visible(session, model, row_id, loader)
    require_etag_match(row, schema)
    return row


@cache
def _build_loader(model: type[Owned], schema: type[Schema]) -> EntityLoader:
    return EntityLoader(model, list(list_attribute_paths(schema())))


def precheck_update(
    model: type[Owned], id_name: str, schema: type[Schema], options: Sequence[ORMOption] = ()
) -> Callable[..., None]:
    """Return the precheck of an updating handler: it raises like `get_for_update`, without locking the row.

    Args:
        model: The model of the row.
        id_name: The path parameter with the id of the row.
        schema: The schema that GET serializes the row with.
        options: Loader options for what the schema shows.
    """

    def check(**arguments: Any) -> None:
        require_etag_match(get_visible(model, arguments[id_name], options=options), schema)

    return check


def apply_changes(row: object, body: Mapping[str, Any], *names: str) -> None:
    """Set the properties of a body on a row: absent ones are unchanged, null clears, `metadata` is merged.

    Args:
        row: The row.
        body: The request body.
        names: The properties to set; without any, all of the body.
    """
    for name, value in body.items():
        if names and name not in names:
            continue
        if name == "metadata":
            merge_metadata(cast("Labeled", row), value)
        else:
            setattr(row, name, value)


def matches_if_none_match(header: str | None, etag: str | None) -> bool:
    """Return whether an If-None-Match header contains an ETag (weak comparison, RFC 9110, section 13.1.2)."""
    if header is None or etag is None:
        return False
    if header.strip() == "*":
        return True
    return etag.removeprefix("W/") in (listed.removeprefix("W/") for listed in parse_etags(header))
