"""One page of a list: a total order, skip or a signed cursor, the count, and the link to the next page.

A cursor is a position in the order, not a promise of access: the query it is applied to was scoped before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import orjson
from flask import request
from marshmallow import Schema
from sqlalchemy import ColumnElement, Select, func, literal, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from db.errors import NotFound
from db.queries.counts import kept_count
from db.records import Reading, Record
from db.session import session
from handlers.answers import Answer, present_many
from handlers.current import current_settings
from handlers.schemas.compiled import paths_of

DEFAULT_SORT = "-created_at"
COUNT_CAP = 10_000
FAR = 500
"""From how many skipped rows on only their ids are read: else each is joined with its pictures first."""


def matching(query: Select[Any], columns: Sequence[Any], q: str | None) -> Select[Any]:
    """Narrow the query to rows in which a column contains `q`, in any case; None changes nothing."""
    if not q:
        return query
    escaped = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return query.where(or_(*(column.ilike(f"%{escaped}%", escape="\\") for column in columns)))


def _signature(payload: bytes) -> bytes:
    return hmac.digest(b"cursor:" + current_settings().secret_key.encode(), payload, hashlib.sha256)[:12]


def _write_cursor(sort: str, value: object, row_id: str) -> str:
    text = value.isoformat() if isinstance(value, datetime) else value
    payload = orjson.dumps([sort, text, row_id])
    return base64.urlsafe_b64encode(_signature(payload) + payload).rstrip(b"=").decode()


def _read_cursor(cursor: str, sort: str) -> tuple[Any, UUID]:
    """Return the sort value and id a cursor stands for; NotFound unless we signed it for this sort."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotFound() from None
    signature, payload = raw[:12], raw[12:]
    if not hmac.compare_digest(signature, _signature(payload)):
        raise NotFound()
    signed_sort, value, row_id = orjson.loads(payload)
    if signed_sort != sort:
        raise NotFound()
    return (value if sort.lstrip("-") == "name" else datetime.fromisoformat(value)), UUID(row_id)


def _after(
    column: InstrumentedAttribute[Any], model: Any, descending: bool, value: Any, row_id: UUID
) -> ColumnElement[bool]:
    position = tuple_(literal(value, column.type), literal(row_id, model.id.type))
    place = tuple_(column, model.id)
    return place < position if descending else place > position


def _count(query: Select[Any], model: Any, capped: bool) -> tuple[int, bool]:
    """Return how many rows match, and whether that is exact."""
    if not capped and (kept := kept_count(query, model)) is not None:
        return kept, True
    rows = query.with_only_columns(literal(1), maintain_column_froms=True).order_by(None)
    if not capped:
        return session().scalar(select(func.count()).select_from(rows.subquery())) or 0, True
    found = session().scalar(select(func.count()).select_from(rows.limit(COUNT_CAP + 1).subquery())) or 0
    return min(found, COUNT_CAP), found <= COUNT_CAP


def _next_link(cursor: str) -> str:
    """Return the address of the next page: this request's, with the cursor in place of skip."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name not in ("cursor", "skip")]
    return f'<{request.path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'


@cache
def _reading_of(model: Any, schema: type[Schema]) -> Reading:
    return Reading(model, paths_of(schema()))


def read(query: Select[Any], model: Any, schema: type[Schema]) -> list[Record]:
    """Return what a query of a model finds, with what the schema shows of it."""
    return _reading_of(model, schema).records(query)


def _is_capped(listing: Mapping[str, Any], filters: int | Sequence[Any]) -> bool:
    given = filters if isinstance(filters, int) else sum(1 for value in filters if value is not None)
    given += sum(1 for name in ("created_after", "updated_after") if listing.get(name) is not None)
    return bool(listing.get("q") or listing.get("search")) or given >= 2


def page(
    query: Select[Any],
    model: Any,
    schema: type[Schema],
    listing: Mapping[str, Any],
    filters: int | Sequence[Any] = 0,
) -> Answer:
    """Answer one page of `query`, which is scoped and filtered already.

    `listing` holds the paging parameters (skip, limit, cursor, sort, created_after, updated_after); `filters`
    the number of other filters in use, or their values, of which None does not count. With `q` or two filters
    the count stops at 10,000 and `count_exact` is then false. NotFound for a cursor that is not ours or of
    another order.
    """
    for name in ("created_after", "updated_after"):
        if listing.get(name) is not None:
            query = query.where(getattr(model, name.replace("_after", "_at")) > listing[name])
    sort, limit = listing.get("sort") or DEFAULT_SORT, listing.get("limit") or 100
    descending, column = sort.startswith("-"), getattr(model, sort.lstrip("-"))

    count, exact = _count(query, model, _is_capped(listing, filters))
    order = (column.desc(), model.id.desc()) if descending else (column.asc(), model.id.asc())
    window = query.order_by(*order).limit(limit + 1)
    if listing.get("cursor") is not None:
        window = window.where(_after(column, model, descending, *_read_cursor(listing["cursor"], sort)))
    elif (skip := listing.get("skip") or 0) > FAR:
        ids = window.with_only_columns(model.id).offset(skip)
        window = window.where(model.id.in_(ids))
    else:
        window = window.offset(skip)
    rows = read(window, model, schema)

    answer: dict[str, Any] = {
        "data": present_many(rows[:limit], schema),
        "count": count,
        "count_exact": exact,
    }
    headers = {}
    answer["next_cursor"] = None
    if len(rows) > limit:
        last = rows[limit - 1]
        answer["next_cursor"] = _write_cursor(sort, getattr(last, column.key), last.id)
        headers["Link"] = _next_link(answer["next_cursor"])
    return Answer(200, answer, headers)
