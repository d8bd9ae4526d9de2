"""Lists: whose rows, narrowed by what, a page at a time in a total order, with their number.

A list is declared once. Its statements are made when they are first asked for, and kept: to make one takes
longer than PostgreSQL takes to answer it. What differs from request to request are named values.

A cursor is a position in the order, not a promise of access: what it is applied to is scoped as any page is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode
from uuid import UUID

import orjson
from flask import request
from marshmallow import Schema
from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    SQLColumnExpression,
    bindparam,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute

from db.base import Owned
from db.errors import NotFound
from db.fast_path.projections import Projection
from db.row_counts.queries import stored_count
from db.session import current_session
from db.tenancy import FILTER_PARAMETERS, RowFilter, RowFilterKind, row_filter
from handlers.common.context import current_settings
from handlers.common.responses import ApiResponse, serialize_many
from handlers.schemas.serializer import list_attribute_paths

DEFAULT_SORT = "-created_at"
MAX_EXACT_COUNT = 10_000
PAGING_PARAMETERS = frozenset(("skip", "limit", "cursor", "sort", "q", "search"))
STATEMENT_CACHE_SIZE = 256
"""Of each kind: a list has thousands of forms, and clients use a few."""
DEEP_OFFSET = 500
"""From how many skipped rows on only their ids are read: else each is joined with its pictures first."""


class _QueryShape(NamedTuple):
    """What the statement of a page depends on, beside values."""

    row_filter_kind: RowFilterKind | None
    with_public: bool
    has_search_text: bool
    filter_names: frozenset[str] = frozenset()
    """The filters that are in use."""
    sort: str = DEFAULT_SORT
    strategy: Literal["first", "skip", "far", "cursor"] = "first"
    """How the page is found."""


@dataclass(frozen=True, eq=False)
class ListQuery:
    """A list of the contract, of the rows of a model as a schema shows them.

    `filters` are columns, or conditions on a value of the filter's name; one is in use when its value is
    given. `within` are such conditions of every page, on rows that belong to something. `searched` are the
    columns in which a text is looked for, in any case. What `grows` without end is counted up to 10,000. A
    list that is neither of a scope nor `within` anything must say that it is `of_everybody`.
    """

    model: Any
    schema: type[Schema]
    filters: Mapping[str, SQLColumnExpression[Any]] = field(default_factory=dict)
    parent: Mapping[str, SQLColumnExpression[Any]] = field(default_factory=dict)
    search_columns: tuple[Any, ...] = ()
    capped_count: bool = False
    is_global: bool = False

    @cached_property
    def projection(self) -> Projection:
        """Reads what the schema shows."""
        return Projection(self.model, list_attribute_paths(self.schema()))

    @cached_property
    def conditions(self) -> Mapping[str, SQLColumnExpression[bool]]:
        """The condition of each filter, those of every list included."""
        columns = self.model.__table__.columns
        after = {
            name: getattr(self.model, name.replace("_after", "_at")) > bindparam(name)
            for name in ("created_after", "updated_after")
            if name.replace("_after", "_at") in columns
        }
        return {**after, **_conditions(self.filters)}

    def list_response(self, params: Mapping[str, Any], tenant_filter: RowFilter | None = None) -> ApiResponse:
        """Answer one page of the rows of a scope, which rows of tenants must have.

        `asked` holds the paging parameters (skip, limit, cursor, sort, created_after, updated_after, and `q`
        or `search`), the filters, of which None is not in use, and what the page is `within`. With a text or
        two filters the count stops at 10,000 and `count_exact` is then false. NotFound for a cursor that is
        not ours or of another order; TypeError for a list that does not say whose rows it has, and for a
        filter that it does not know.
        """
        self._check_params(params, tenant_filter)
        sort, limit = params.get("sort") or DEFAULT_SORT, params.get("limit") or 100
        given = frozenset(name for name in self.conditions if params.get(name) is not None)
        values = {name: params[name] for name in (*given, *self.parent)}
        values |= {
            "rows": limit + 1,
            "most": MAX_EXACT_COUNT + 1,
            **(tenant_filter.values if tenant_filter else {}),
        }
        if text := params.get("q") or params.get("search"):
            values["text"] = like_pattern(text)
        way: Literal["first", "skip", "far", "cursor"] = "first"
        if params.get("cursor") is not None:
            way, (values["place"], values["place_id"]) = "cursor", _decode_cursor(params["cursor"], sort)
        elif skip := params.get("skip"):
            way, values["skip"] = "far" if skip > DEEP_OFFSET else "skip", skip
        kind, with_public = (
            (tenant_filter.kind, tenant_filter.with_public) if tenant_filter else (None, False)
        )
        form = _QueryShape(kind, with_public, bool(text), given, sort, way)

        found = current_session().execute(_build_page(self, form), values).all()
        counted: int = (
            found[0].counted if found else current_session().scalars(_build_count(self, form), values).one()
        )
        records = self.projection.fetch_records(found[:limit])
        exact = not _is_capped(self, form) or counted <= MAX_EXACT_COUNT
        answer: dict[str, Any] = {
            "data": serialize_many(records, self.schema),
            "count": counted if exact else MAX_EXACT_COUNT,
            "count_exact": exact,
            "next_cursor": None,
        }
        headers = {}
        if len(found) > limit:
            last = records[-1]
            answer["next_cursor"] = _encode_cursor(sort, getattr(last, sort.lstrip("-")), last.id)
            headers["Link"] = _next_link(answer["next_cursor"])
        return ApiResponse(200, answer, headers)

    def _check_params(self, params: Mapping[str, Any], tenant_filter: RowFilter | None) -> None:
        if tenant_filter is None and (issubclass(self.model, Owned) or not (self.parent or self.is_global)):
            raise TypeError(f"a list of {self.model.__name__} must say whose")
        unknown = params.keys() - PAGING_PARAMETERS - self.conditions.keys() - self.parent.keys()
        if unknown:
            raise TypeError(f"{self.model.__name__} is not narrowed by {', '.join(sorted(unknown))}")

    def list_latest(self, text: str, limit: int, tenant_filter: RowFilter) -> list[dict[str, Any]]:
        """Return the newest rows of a scope in which a text is found, as the schema shows them."""
        values = {**tenant_filter.values, "text": like_pattern(text), "rows": limit}
        form = _QueryShape(tenant_filter.kind, tenant_filter.with_public, has_search_text=True)
        found = current_session().execute(_build_latest(self, form), values).all()
        return serialize_many(self.projection.fetch_records(found), self.schema)


def like_pattern(text: str) -> str:
    """Return the pattern of LIKE for what contains a text; its escape is a backslash."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def matches_any(columns: Iterable[SQLColumnExpression[Any]]) -> ColumnElement[bool]:
    """Return the condition that a column matches the pattern `text`, in any case."""
    return or_(*(column.ilike(bindparam("text"), escape="\\") for column in columns))


def _conditions(named: Mapping[str, SQLColumnExpression[Any]]) -> dict[str, SQLColumnExpression[bool]]:
    return {
        name: column == bindparam(name) if isinstance(column, InstrumentedAttribute) else column
        for name, column in named.items()
    }


def _all_rows(list_query: ListQuery, shape: _QueryShape) -> Select[Any]:
    """Select all rows of a list, without an order."""
    conditions: list[Any] = [*_conditions(list_query.parent).values()]
    if shape.row_filter_kind is not None:
        conditions += row_filter(list_query.model, shape.row_filter_kind, shape.with_public)
    conditions += [list_query.conditions[name] for name in sorted(shape.filter_names)]
    if shape.has_search_text:
        conditions.append(matches_any(list_query.search_columns))
    return select(list_query.model).where(*conditions)


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _build_page(list_query: ListQuery, shape: _QueryShape) -> Select[Any]:
    """Select what is read of a page, with the number of all rows in each of it."""
    counted = _build_count(list_query, shape).correlate(None).scalar_subquery()
    return list_query.projection.apply(_window(list_query, shape)).add_columns(counted.label("counted"))


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _build_latest(list_query: ListQuery, shape: _QueryShape) -> Select[Any]:
    return list_query.projection.apply(_window(list_query, shape))


def _window(list_query: ListQuery, shape: _QueryShape) -> Select[Any]:
    """Select the rows of a page."""
    model, descending = list_query.model, shape.sort.startswith("-")
    column = getattr(model, shape.sort.lstrip("-"))
    # Written out, because PostgreSQL keeps a plan only where it knows how many rows are wanted. To plan a
    # list anew each time took two fifths of its work.
    window = _all_rows(list_query, shape).limit(bindparam("rows", type_=Integer, literal_execute=True))
    window = window.order_by(*((column.desc(), model.id.desc()) if descending else (column, model.id)))
    skip = bindparam("skip", type_=Integer)
    if shape.strategy == "cursor":
        place = tuple_(bindparam("place", type_=column.type), bindparam("place_id", type_=model.id.type))
        here = tuple_(column, model.id)
        window = window.where(here < place if descending else here > place)
    elif shape.strategy == "far":
        window = window.where(model.id.in_(window.with_only_columns(model.id).offset(skip)))
    elif shape.strategy == "skip":
        window = window.offset(skip)
    return window


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _build_count(list_query: ListQuery, shape: _QueryShape) -> Select[Any]:
    if (kept := _find_stored_count(list_query, shape)) is not None:
        return kept
    rows = _all_rows(list_query, shape).with_only_columns(literal(1), maintain_column_froms=True)
    if _is_capped(list_query, shape):
        rows = rows.limit(bindparam("most", type_=Integer))
    return select(func.count()).select_from(rows.subquery())


def _is_capped(list_query: ListQuery, shape: _QueryShape) -> bool:
    return list_query.capped_count or shape.has_search_text or len(shape.filter_names) >= 2


def _find_stored_count(list_query: ListQuery, shape: _QueryShape) -> Select[Any] | None:
    if _is_capped(list_query, shape) or shape.with_public or list_query.parent:
        return None
    column = next(iter(shape.filter_names), None)
    if column is not None and not isinstance(list_query.filters.get(column), InstrumentedAttribute):
        return None
    match shape.row_filter_kind:
        case RowFilterKind.EVERYTHING:
            return stored_count(list_query.model, column, None)
        case RowFilterKind.ORGANIZATION:
            return stored_count(list_query.model, column, FILTER_PARAMETERS["organization_id"])
        case RowFilterKind.PERSONAL:
            return stored_count(list_query.model, column, FILTER_PARAMETERS["caller_id"])
    return None


def _signature(payload: bytes) -> bytes:
    return hmac.digest(b"cursor:" + current_settings().secret_key.encode(), payload, hashlib.sha256)[:12]


def _encode_cursor(sort: str, value: object, row_id: str) -> str:
    text = value.isoformat() if isinstance(value, datetime) else value
    payload = orjson.dumps([sort, text, row_id])
    return base64.urlsafe_b64encode(_signature(payload) + payload).rstrip(b"=").decode()


def _decode_cursor(cursor: str, sort: str) -> tuple[Any, UUID]:
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


def _next_link(cursor: str) -> str:
    """Return the address of the next page: this request's, with the cursor in place of skip."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name not in ("cursor", "skip")]
    return f'<{request.path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'
