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
from db.queries.counts import kept_total
from db.records import Reading
from db.session import session
from db.tenancy import VALUES, Scope, ScopeKind, in_scope
from handlers.answers import Answer, present_many
from handlers.current import current_settings
from handlers.schemas.compiled import paths_of

DEFAULT_SORT = "-created_at"
COUNT_CAP = 10_000
PAGING = frozenset(("skip", "limit", "cursor", "sort", "q", "search"))
KEPT_STATEMENTS = 256
"""Of each kind: a list has thousands of forms, and clients use a few."""
FAR = 500
"""From how many skipped rows on only their ids are read: else each is joined with its pictures first."""


class _Form(NamedTuple):
    """What the statement of a page depends on, beside values."""

    scope: ScopeKind | None
    with_public: bool
    is_searched: bool
    given: frozenset[str] = frozenset()
    """The filters that are in use."""
    sort: str = DEFAULT_SORT
    way: Literal["first", "skip", "far", "cursor"] = "first"
    """How the page is found."""


@dataclass(frozen=True, eq=False)
class Listing:
    """A list of the contract, of the rows of a model as a schema shows them.

    `filters` are columns, or conditions on a value of the filter's name; one is in use when its value is
    given. `within` are such conditions of every page, on rows that belong to something. `searched` are the
    columns in which a text is looked for, in any case. What `grows` without end is counted up to 10,000. A
    list that is neither of a scope nor `within` anything must say that it is `of_everybody`.
    """

    model: Any
    schema: type[Schema]
    filters: Mapping[str, SQLColumnExpression[Any]] = field(default_factory=dict)
    within: Mapping[str, SQLColumnExpression[Any]] = field(default_factory=dict)
    searched: tuple[Any, ...] = ()
    grows: bool = False
    of_everybody: bool = False

    @cached_property
    def reading(self) -> Reading:
        """Reads what the schema shows."""
        return Reading(self.model, paths_of(self.schema()))

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

    def page(self, asked: Mapping[str, Any], scope: Scope | None = None) -> Answer:
        """Answer one page of the rows of a scope, which rows of tenants must have.

        `asked` holds the paging parameters (skip, limit, cursor, sort, created_after, updated_after, and `q`
        or `search`), the filters, of which None is not in use, and what the page is `within`. With a text or
        two filters the count stops at 10,000 and `count_exact` is then false. NotFound for a cursor that is
        not ours or of another order; TypeError for a list that does not say whose rows it has, and for a
        filter that it does not know.
        """
        self._check(asked, scope)
        sort, limit = asked.get("sort") or DEFAULT_SORT, asked.get("limit") or 100
        given = frozenset(name for name in self.conditions if asked.get(name) is not None)
        values = {name: asked[name] for name in (*given, *self.within)}
        values |= {"rows": limit + 1, "most": COUNT_CAP + 1, **(scope.values if scope else {})}
        if text := asked.get("q") or asked.get("search"):
            values["text"] = containing(text)
        way: Literal["first", "skip", "far", "cursor"] = "first"
        if asked.get("cursor") is not None:
            way, (values["place"], values["place_id"]) = "cursor", _read_cursor(asked["cursor"], sort)
        elif skip := asked.get("skip"):
            way, values["skip"] = "far" if skip > FAR else "skip", skip
        kind, with_public = (scope.kind, scope.with_public) if scope else (None, False)
        form = _Form(kind, with_public, bool(text), given, sort, way)

        found = session().execute(_page_of(self, form), values).all()
        counted: int = found[0].counted if found else session().scalars(_count_of(self, form), values).one()
        records = self.reading.records(found[:limit])
        exact = not _is_capped(self, form) or counted <= COUNT_CAP
        answer: dict[str, Any] = {
            "data": present_many(records, self.schema),
            "count": counted if exact else COUNT_CAP,
            "count_exact": exact,
            "next_cursor": None,
        }
        headers = {}
        if len(found) > limit:
            last = records[-1]
            answer["next_cursor"] = _write_cursor(sort, getattr(last, sort.lstrip("-")), last.id)
            headers["Link"] = _next_link(answer["next_cursor"])
        return Answer(200, answer, headers)

    def _check(self, asked: Mapping[str, Any], scope: Scope | None) -> None:
        if scope is None and (issubclass(self.model, Owned) or not (self.within or self.of_everybody)):
            raise TypeError(f"a list of {self.model.__name__} must say whose")
        unknown = asked.keys() - PAGING - self.conditions.keys() - self.within.keys()
        if unknown:
            raise TypeError(f"{self.model.__name__} is not narrowed by {', '.join(sorted(unknown))}")

    def newest(self, text: str, limit: int, scope: Scope) -> list[dict[str, Any]]:
        """Return the newest rows of a scope in which a text is found, as the schema shows them."""
        values = {**scope.values, "text": containing(text), "rows": limit}
        form = _Form(scope.kind, scope.with_public, is_searched=True)
        found = session().execute(_newest_of(self, form), values).all()
        return present_many(self.reading.records(found), self.schema)


def containing(text: str) -> str:
    """Return the pattern of LIKE for what contains a text; its escape is a backslash."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def contains(columns: Iterable[SQLColumnExpression[Any]]) -> ColumnElement[bool]:
    """Return the condition that a column matches the pattern `text`, in any case."""
    return or_(*(column.ilike(bindparam("text"), escape="\\") for column in columns))


def _conditions(named: Mapping[str, SQLColumnExpression[Any]]) -> dict[str, SQLColumnExpression[bool]]:
    return {
        name: column == bindparam(name) if isinstance(column, InstrumentedAttribute) else column
        for name, column in named.items()
    }


def _all_rows(listing: Listing, form: _Form) -> Select[Any]:
    """Select all rows of a list, without an order."""
    conditions: list[Any] = [*_conditions(listing.within).values()]
    if form.scope is not None:
        conditions += in_scope(listing.model, form.scope, form.with_public)
    conditions += [listing.conditions[name] for name in sorted(form.given)]
    if form.is_searched:
        conditions.append(contains(listing.searched))
    return select(listing.model).where(*conditions)


@lru_cache(maxsize=KEPT_STATEMENTS)
def _page_of(listing: Listing, form: _Form) -> Select[Any]:
    """Select what is read of a page, with the number of all rows in each of it."""
    counted = _count_of(listing, form).correlate(None).scalar_subquery()
    return listing.reading.narrow(_window(listing, form)).add_columns(counted.label("counted"))


@lru_cache(maxsize=KEPT_STATEMENTS)
def _newest_of(listing: Listing, form: _Form) -> Select[Any]:
    return listing.reading.narrow(_window(listing, form))


def _window(listing: Listing, form: _Form) -> Select[Any]:
    """Select the rows of a page."""
    model, descending = listing.model, form.sort.startswith("-")
    column = getattr(model, form.sort.lstrip("-"))
    # Written out, because PostgreSQL keeps a plan only where it knows how many rows are wanted. To plan a
    # list anew each time took two fifths of its work.
    window = _all_rows(listing, form).limit(bindparam("rows", type_=Integer, literal_execute=True))
    window = window.order_by(*((column.desc(), model.id.desc()) if descending else (column, model.id)))
    skip = bindparam("skip", type_=Integer)
    if form.way == "cursor":
        place = tuple_(bindparam("place", type_=column.type), bindparam("place_id", type_=model.id.type))
        here = tuple_(column, model.id)
        window = window.where(here < place if descending else here > place)
    elif form.way == "far":
        window = window.where(model.id.in_(window.with_only_columns(model.id).offset(skip)))
    elif form.way == "skip":
        window = window.offset(skip)
    return window


@lru_cache(maxsize=KEPT_STATEMENTS)
def _count_of(listing: Listing, form: _Form) -> Select[Any]:
    if (kept := _kept(listing, form)) is not None:
        return kept
    rows = _all_rows(listing, form).with_only_columns(literal(1), maintain_column_froms=True)
    if _is_capped(listing, form):
        rows = rows.limit(bindparam("most", type_=Integer))
    return select(func.count()).select_from(rows.subquery())


def _is_capped(listing: Listing, form: _Form) -> bool:
    return listing.grows or form.is_searched or len(form.given) >= 2


def _kept(listing: Listing, form: _Form) -> Select[Any] | None:
    if _is_capped(listing, form) or form.with_public or listing.within:
        return None
    column = next(iter(form.given), None)
    if column is not None and not isinstance(listing.filters.get(column), InstrumentedAttribute):
        return None
    match form.scope:
        case ScopeKind.EVERYTHING:
            return kept_total(listing.model, column, None)
        case ScopeKind.ORGANIZATION:
            return kept_total(listing.model, column, VALUES["organization_id"])
        case ScopeKind.PERSONAL:
            return kept_total(listing.model, column, VALUES["caller_id"])
    return None


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


def _next_link(cursor: str) -> str:
    """Return the address of the next page: this request's, with the cursor in place of skip."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name not in ("cursor", "skip")]
    return f'<{request.path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'
