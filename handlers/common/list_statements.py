"""Build the statements of lists, once for each combination of filters, search, sort order and strategy.

Building a statement takes longer than PostgreSQL takes to execute it, so each is cached; the values of a
request are bound parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Integer,
    Select,
    SQLColumnExpression,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute

from db.models.metadata_entries import MetadataEntry
from db.row_counts.queries import stored_count
from db.tenancy import FILTER_PARAMETERS, RowFilterKind, row_filter

if TYPE_CHECKING:
    from handlers.common.pagination import ListQuery

DEFAULT_SORT = "-created_at"
STATEMENT_CACHE_SIZE = 256
"""Of each kind of statement: a list has thousands of possible shapes, and clients use a few."""

Strategy = Literal["first", "skip", "deep_skip", "cursor"]
"""How the rows of a page are selected."""

Search = Literal["", "contains", "starts", "found"]


class QueryShape(NamedTuple):
    """What the statement of a page depends on, apart from bound values."""

    row_filter_kind: RowFilterKind | None
    with_public: bool
    search: Search = ""
    """How a text is searched: in the columns, at the start of the first, or in rows that an index found."""
    filter_names: frozenset[str] = frozenset()
    """The filters in use."""
    single_names: frozenset[str] = frozenset()
    """Those of them that are arrays with one value."""
    sort: str = DEFAULT_SORT
    strategy: Strategy = "first"
    is_counted: bool = False
    """Whether the number of rows is known, as the bound value `total`."""


@cache
def search_index(table: str) -> Select[Any]:
    """Return the statement that searches the index of a table: the number of rows, and an array of their ids.

    Migration 0053 creates the functions and describes them; since 0054 the ids are in the default order.
    """
    names = {"scope_id": Uuid, "with_public": Boolean, "searched": Text, "pattern": Text, "most": Integer}
    arguments = (bindparam(name, type_=kind()) for name, kind in names.items())
    found = getattr(func, f"sartiq_search_{table}")(*arguments).table_valued("total", "ids")
    return select(found.c.total, found.c.ids)


def escape_like(text: str) -> str:
    """Return a text as a LIKE pattern that matches only it, escaped with a backslash."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def like_pattern(text: str) -> str:
    """Return the LIKE pattern that matches values containing a text."""
    return f"%{escape_like(text)}%"


def matches_any(columns: Iterable[SQLColumnExpression[Any]]) -> ColumnElement[bool]:
    """Return the condition that a column matches the bound pattern `text`, ignoring case."""
    return or_(*(column.ilike(bindparam("text"), escape="\\") for column in columns))


def has_metadata(model: Any, scope_id: ColumnElement[Any] | None = None) -> ColumnElement[bool]:
    """Return the condition that the metadata of a row has the bound parameter `metadata`, `key:value`.

    Args:
        model: The model of the rows.
        scope_id: The tenant that all rows of the list belong to, if there is one, for the index.
    """
    entries = select(MetadataEntry.resource_id).where(MetadataEntry.pair == bindparam("metadata"))
    if scope_id is not None:
        entries = entries.where(MetadataEntry.scope_id == scope_id)
    condition: ColumnElement[bool] = model.id.in_(entries)
    return condition


def matches_one_of(column: InstrumentedAttribute[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column has one of the values of the bound parameter `name`, a list."""
    return column == any_(bindparam(name, type_=ARRAY(column.type)))


def build_conditions(named: Mapping[str, SQLColumnExpression[Any]]) -> dict[str, SQLColumnExpression[bool]]:
    """Return the conditions of columns, which are compared with a parameter of their name, and of others."""
    return {
        name: column == bindparam(name) if isinstance(column, InstrumentedAttribute) else column
        for name, column in named.items()
    }


def _select_rows(list_query: ListQuery, shape: QueryShape) -> Select[Any]:
    """Select all rows of a list, unordered."""
    conditions: list[Any] = [*build_conditions(list_query.parent).values()]
    if shape.row_filter_kind is not None:
        conditions += row_filter(list_query.model, shape.row_filter_kind, shape.with_public)
    conditions += [_find_condition(list_query, shape, name) for name in sorted(shape.filter_names)]
    if shape.search:
        columns = list_query.search_columns
        # Also for rows that were found: they may have changed since.
        conditions.append(matches_any(columns[:1] if shape.search == "starts" else columns))
    if shape.search == "found":
        # As a text, which no process parses but PostgreSQL.
        found = cast(bindparam("found", type_=Text), ARRAY(Uuid()))
        # Not `= ANY`, for which PostgreSQL may read the index of the order.
        conditions.append(list_query.model.id.in_(select(func.unnest(found))))
    return select(list_query.model).where(*conditions)


def _find_condition(list_query: ListQuery, shape: QueryShape, name: str) -> SQLColumnExpression[bool]:
    if name in shape.single_names:
        # Only with a comparison with one value does an index have the rows in the order of the list.
        return list_query.array_columns[name] == bindparam(f"{name}_single")
    if name == "metadata" and not shape.with_public:
        match shape.row_filter_kind:
            case RowFilterKind.ORGANIZATION:
                return has_metadata(list_query.model, FILTER_PARAMETERS["organization_id"])
            case RowFilterKind.PERSONAL:
                return has_metadata(list_query.model, FILTER_PARAMETERS["caller_id"])
    return list_query.conditions[name]


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def build_page(list_query: ListQuery, shape: QueryShape) -> Select[Any]:
    """Select the columns of a page, with the count of all rows as the column `counted`."""
    count: ColumnElement[int] = bindparam("total", type_=Integer)
    if not shape.is_counted:
        count = build_count(list_query, shape).correlate(None).scalar_subquery()
    return list_query.projection.apply(_select_window(list_query, shape)).add_columns(count.label("counted"))


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def build_latest(list_query: ListQuery, shape: QueryShape) -> Select[Any]:
    """Select the columns of a page, without a count."""
    return list_query.projection.apply(_select_window(list_query, shape))


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def build_collections(list_query: ListQuery, shape: QueryShape) -> list[Select[Any]]:
    """Select the collections of the rows of a page."""
    ids = _select_window(list_query, shape).with_only_columns(list_query.model.id)
    return list_query.projection.collections_of(ids)


def _select_window(list_query: ListQuery, shape: QueryShape) -> Select[Any]:
    """Select the rows of a page, ordered."""
    model, is_descending = list_query.model, shape.sort.startswith("-")
    name = shape.sort.lstrip("-")
    column = list_query.sort_expressions.get(name, getattr(model, name))
    # The limit is literal SQL, because PostgreSQL reuses a plan only where it knows the number of rows.
    # Planning a list for each request took two fifths of its time.
    window = _select_rows(list_query, shape).limit(bindparam("rows", type_=Integer, literal_execute=True))
    window = window.order_by(*((column.desc(), model.id.desc()) if is_descending else (column, model.id)))
    skip = bindparam("skip", type_=Integer)
    if shape.strategy == "cursor":
        last = tuple_(bindparam("place", type_=column.type), bindparam("place_id", type_=model.id.type))
        row = tuple_(column, model.id)
        window = window.where(row < last if is_descending else row > last)
    elif shape.strategy == "deep_skip":
        window = window.where(model.id.in_(window.with_only_columns(model.id).offset(skip)))
    elif shape.strategy == "skip":
        window = window.offset(skip)
    return window


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def build_count(list_query: ListQuery, shape: QueryShape) -> Select[Any]:
    """Select the number of all rows, or of the first `most` of them if it is capped."""
    if (stored := _find_stored_count(list_query, shape)) is not None:
        return stored
    rows = _select_rows(list_query, shape).with_only_columns(literal(1), maintain_column_froms=True)
    if is_capped(list_query, shape):
        rows = rows.limit(bindparam("most", type_=Integer))
    return select(func.count()).select_from(rows.subquery())


def is_capped(list_query: ListQuery, shape: QueryShape) -> bool:
    """Return whether the count of rows stops at the parameter `most`."""
    return (
        list_query.capped_count
        or shape.search != ""
        or len(shape.filter_names) >= 2
        # No counter cache covers these, and most rows can match.
        or any(
            name.endswith(("_in", "_after", "_before")) or name in ("products", "metadata")
            for name in shape.filter_names
        )
    )


def _find_stored_count(list_query: ListQuery, shape: QueryShape) -> Select[Any] | None:
    """Return the statement that reads a count which is kept, None where there is no such count."""
    if is_capped(list_query, shape) or shape.with_public:
        return None
    column = next(iter(shape.filter_names), None)
    if list_query.parent:
        return list_query.kept_counts.get(column or "")
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
