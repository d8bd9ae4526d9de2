"""Answer the lists of the contract: filters, search, sort order, pages and the number of rows.

A list is declared once, as a `ListQuery`. `list_statements` builds its statements, `cursors` signs positions.
The module knows no resource, and the tenant filter comes from `db.tenancy`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any
from uuid import UUID

from marshmallow import Schema
from sqlalchemy import Select, SQLColumnExpression, bindparam, select
from sqlalchemy.orm import InstrumentedAttribute

from db.base import Labeled, Owned, utc_now
from db.caller import current_caller, require_permission_of_member
from db.fast_path.projections import Projection
from db.libpq.statements import Query, Row
from db.models.products import Product
from db.tenancy import (
    RowFilter,
    RowFilterKind,
    list_filter_of_member,
    readable_filter,
    row_filter,
)
from handlers.common.cursors import (
    build_next_link,
    build_organization_links,
    decode_position,
    encode_position,
)
from handlers.common.list_statements import (
    DEFAULT_SORT,
    STATEMENT_CACHE_SIZE,
    QueryShape,
    Search,
    Strategy,
    build_collections,
    build_conditions,
    build_count,
    build_latest,
    build_page,
    escape_like,
    has_metadata,
    is_capped,
    like_pattern,
    matches_one_of,
    search_index,
)
from handlers.common.permissions import Permission
from handlers.common.reads import Reading, Step, VisibleRows, read_membership, read_permission_in
from handlers.common.responses import ApiResponse, serialize_many
from handlers.schemas.serializer import list_attribute_paths

DEFAULT_LIMIT = 100
MAX_EXACT_COUNT = 10_000
TEXT_SORTS = frozenset(("name", "sku"))
"""The sort orders by a text; all others are by a time."""
PAGING_PARAMETERS = frozenset(("skip", "limit", "cursor", "sort", "q", "search"))
DEEP_OFFSET = 500
"""Above this offset, ids are skipped first and joined afterwards, so that skipped rows cost no joins."""

MIN_SEARCH_LENGTH = 3
"""Shorter texts find the start of the name: an index of trigrams knows no others."""

ID_LENGTH = 37
"""The characters of an id and of the comma after it, in the text form of an array."""

MAX_PRODUCTS = 100
"""How many products a filter covers: one of a tenant, and public ones with the same SKU or external id."""
PRODUCT_FILTERS = {"product_id": Product.id, "sku": Product.sku, "external_id": Product.external_id}
"""The columns of the filters of `read_products`."""

_SCOPES = {RowFilterKind.ORGANIZATION: "organization_id", RowFilterKind.PERSONAL: "caller_id"}
"""The value of a filter that is the tenant, by the kind of the filter."""


@dataclass(frozen=True, eq=False)
class ListQuery:
    """A list of the contract: rows of a model, serialized with a schema.

    Attributes:
        model: The model class of the rows.
        schema: The schema that serializes a row; only the columns that it shows are read.
        filters: Columns, or conditions on a bound parameter of the filter's name. A filter is in use when
            its value is not None.
        parent: Conditions that apply to every page, for rows that belong to another row.
        search_columns: The columns that `q` is searched in, ignoring case.
        sort_expressions: What a list is sorted by under the name of a text column that can be null. It needs
            an index, and is an empty text for null: a position in a cursor cannot be null.
        kept_counts: Statements that read the count from the row that `parent` is about: of all rows under an
            empty name, and with one filter under the name of the filter. They have the bind parameters of
            the parent and of the filter.
        capped_count: Whether the count always stops at `MAX_EXACT_COUNT`, for lists that only grow.
        is_global: Whether the list is neither filtered by tenant nor by a parent.
    """

    model: Any
    schema: type[Schema]
    filters: Mapping[str, SQLColumnExpression[Any]] = field(default_factory=dict)
    parent: Mapping[str, SQLColumnExpression[Any]] = field(default_factory=dict)
    search_columns: tuple[Any, ...] = ()
    sort_expressions: Mapping[str, SQLColumnExpression[str]] = field(default_factory=dict)
    kept_counts: Mapping[str, Select[Any]] = field(default_factory=dict)
    capped_count: bool = False
    is_global: bool = False

    @cached_property
    def projection(self) -> Projection:
        """Return the projection that reads what the schema shows."""
        return Projection(self.model, list_attribute_paths(self.schema()))

    @cached_property
    def conditions(self) -> Mapping[str, SQLColumnExpression[bool]]:
        """Return the condition of each filter, including those that every list has."""
        columns = self.model.__table__.columns
        times = {
            name: getattr(self.model, f"{name}_at")
            for name in ("created", "updated")
            if f"{name}_at" in columns
        }
        after = {f"{name}_after": column > bindparam(f"{name}_after") for name, column in times.items()}
        before = {f"{name}_before": column < bindparam(f"{name}_before") for name, column in times.items()}
        arrays = {name: matches_one_of(column, name) for name, column in self.array_columns.items()}
        own = {"metadata": has_metadata(self.model)} if issubclass(self.model, Labeled) else {}
        return {**after, **before, **arrays, **own, **build_conditions(self.filters)}

    @cached_property
    def array_columns(self) -> Mapping[str, InstrumentedAttribute[Any]]:
        """Return the columns that are compared with an array of values, by the name of the parameter."""
        columns = {
            f"{name}_in": column
            for name, column in self.filters.items()
            if isinstance(column, InstrumentedAttribute)
        }
        return {"ids": self.model.id, **columns}

    def read_page(
        self, params: Mapping[str, Any], tenant_filter: RowFilter | None = None
    ) -> Reading[ApiResponse]:
        """Return one page as a 200 response.

        Args:
            params: The paging parameters (`skip`, `limit`, `cursor`, `sort`, `created_after`,
                `updated_after`, `created_before`, `updated_before`, and `q` or `search`), the filters, `ids`,
                the arrays of values of a filter (`status_in`), and the values of `parent`. With a search
                text, two filters or one of `is_capped`, the count stops at `MAX_EXACT_COUNT`, and
                `count_exact` is then false.
            tenant_filter: The rows that the caller may see; required for rows of tenants.

        Raises:
            NotFound: The cursor is invalid or belongs to another list, sort order or filter.
            TypeError: The list is neither filtered nor global, or a parameter is no filter of the list.
        """
        self._check_params(params, tenant_filter)
        sort, limit = params.get("sort") or DEFAULT_SORT, params.get("limit") or DEFAULT_LIMIT
        filter_names = frozenset(name for name in self.conditions if params.get(name) is not None)
        values = {name: params[name] for name in (*filter_names, *self.parent)}
        values |= {"rows": limit + 1, "most": MAX_EXACT_COUNT + 1}
        single = {name: params[name] for name in filter_names & self.array_columns.keys()}
        single = {name: items[0] for name, items in single.items() if len(items) == 1}
        values |= {f"{name}_single": value for name, value in single.items()}
        values |= tenant_filter.values if tenant_filter else {}
        strategy: Strategy = "first"
        if params.get("cursor") is not None:
            strategy = "cursor"
        elif skip := params.get("skip"):
            strategy, values["skip"] = "deep_skip" if skip > DEEP_OFFSET else "skip", skip
        kind = tenant_filter.kind if tenant_filter else None
        with_public = tenant_filter.with_public if tenant_filter else False
        search: Search = ""
        if text := params.get("q") or params.get("search"):
            search = yield from self._read_found(text, tenant_filter, values)
        is_counted = "total" in values and not filter_names
        names = filter_names, frozenset(single)
        shape = QueryShape(kind, with_public, search, *names, sort, strategy, is_counted)
        if strategy == "cursor":
            position = _decode_cursor(params["cursor"], self._cursor_scope(shape, values))
            values["place"], values["place_id"] = position

        rows, collections = yield from self._read_found_rows(shape, values, limit)
        if rows:
            # Each row has the count as its last column.
            total: int = rows[0][-1]
        elif strategy == "first" and not self.kept_counts:
            total = 0
        elif shape.is_counted:
            total = values["total"]
        else:
            (((total,),),) = yield Step([Query(build_count(self, shape), values)])
        records = self.projection.build_records(rows[:limit], collections)
        is_exact = not is_capped(self, shape) or total <= MAX_EXACT_COUNT
        page: dict[str, Any] = {
            "data": serialize_many(records, self.schema),
            "count": total if is_exact else MAX_EXACT_COUNT,
            "count_exact": is_exact,
            "next_cursor": None,
        }
        headers = {}
        if len(rows) > limit:
            last = records[-1]
            scope = self._cursor_scope(shape, values)
            name = sort.lstrip("-")
            sorted_by = getattr(last, name) or ""
            if name not in TEXT_SORTS:
                sorted_by = _format_position(sorted_by)
            page["next_cursor"] = encode_position(scope, sorted_by, last.id)
            headers["Link"] = build_next_link(page["next_cursor"])
        elif total == 0 and kind is RowFilterKind.PERSONAL and (links := build_organization_links()):
            headers["Link"] = links
        return ApiResponse(200, page, headers, may_compress=True)

    def _read_found(
        self, text: str, tenant_filter: RowFilter | None, values: dict[str, Any]
    ) -> Reading[Search]:
        """Look for a text in the index; return how the page searches it, and add the values of the statement.

        Without an index, and for a text that is in very many rows, the page finds the text itself.
        """
        is_prefix = len(text) < MIN_SEARCH_LENGTH and issubclass(self.model, Owned)
        values["text"] = escape_like(text) + "%" if is_prefix else like_pattern(text)
        search: Search = "starts" if is_prefix else "contains"
        if tenant_filter is None or tenant_filter.kind not in _SCOPES:
            return search
        arguments = {"scope_id": tenant_filter.values[_SCOPES[tenant_filter.kind]], "searched": text}
        arguments |= {"pattern": values["text"], "most": values["most"]}
        arguments["with_public"] = tenant_filter.with_public
        (((total, found),),) = yield Step([Query(search_index(self.model.__tablename__), arguments)])
        if total is not None:
            values["total"] = total
        if found is None:
            return search
        values["found"] = found
        return "found"

    def _read_found_rows(
        self, shape: QueryShape, values: Mapping[str, Any], limit: int
    ) -> Reading[tuple[list[Row], list[list[Row]]]]:
        """Return the rows of a page, and the rows of their collections.

        The index returns ids in the default order. A page in that order reads only its own: each row costs a
        look-up and its policies.
        """
        start, is_ordered = values.get("skip", 0), shape.sort == DEFAULT_SORT
        if shape.search == "found" and shape.strategy == "cursor":
            place = values["found"].find(str(values["place_id"]))
            start, is_ordered = place // ID_LENGTH + 1, is_ordered and place >= 0
        if shape.search == "found" and is_ordered and not (shape.filter_names or self.parent):
            found = _slice_ids(values["found"], start, limit + 1)
            of_page = QueryShape(shape.row_filter_kind, shape.with_public, "found", is_counted=True)
            page = yield from self._read_rows(
                build_page(self, of_page), of_page, {**values, "found": found}, limit
            )
            # A row that has changed since is missing: then the next ones fill the page.
            if len(page[0]) == len(found) // ID_LENGTH:
                return page
        return (yield from self._read_rows(build_page(self, shape), shape, values, limit))

    def _read_rows(
        self, statement: Select[Any], shape: QueryShape, values: Mapping[str, Any], limit: int
    ) -> Reading[tuple[list[Row], list[list[Row]]]]:
        """Return the rows of a statement, and the rows of the collections of the first `limit` of them."""
        query = Query(statement, values)
        if not self.projection.has_collections:
            (rows,) = yield Step([query])
            return rows, []
        if shape.search or shape.strategy in ("skip", "deep_skip"):
            # Finding the rows a second time would cost more than a second message.
            (rows,) = yield Step([query])
            if not rows:
                return rows, [[] for _ in self.projection.collection_queries([])]
            return rows, (yield Step(self.projection.collection_queries([row[0] for row in rows[:limit]])))
        of_page = [Query(each, values) for each in build_collections(self, shape)]
        # In one snapshot: the collections are those of the same rows.
        rows, *collections = yield Step([query, *of_page], is_snapshot=True)
        return rows, collections

    def _cursor_scope(self, shape: QueryShape, values: Mapping[str, Any]) -> str:
        """Return a name of the sorted and filtered list, for which alone a cursor is valid.

        It starts with the sort order, which tells the type of the position in the cursor.
        """
        # Not the caller's organizations: they can change while a client reads the pages.
        names = {*shape.filter_names, *self.parent, "text", "organization_id"} & values.keys()
        # A time in a condition of the parent is the current one.
        changing = {name for name in self.parent if isinstance(values[name], datetime)}
        filters = [(name, str(values[name])) for name in sorted(names - changing)]
        key = (self.model.__tablename__, str(shape.row_filter_kind), shape.with_public, filters)
        return f"{shape.sort} {hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"

    def _check_params(self, params: Mapping[str, Any], tenant_filter: RowFilter | None) -> None:
        if tenant_filter is None and (issubclass(self.model, Owned) or not (self.parent or self.is_global)):
            raise TypeError(f"the list of {self.model.__name__} needs a tenant filter, a parent or is_global")
        unknown = params.keys() - PAGING_PARAMETERS - self.conditions.keys() - self.parent.keys()
        if unknown:
            raise TypeError(f"the list of {self.model.__name__} has no filter {', '.join(sorted(unknown))}")

    def read_latest(self, text: str, limit: int, tenant_filter: RowFilter) -> Reading[list[dict[str, Any]]]:
        """Return the newest visible rows in which a text is found, serialized."""
        values = {**tenant_filter.values, "text": like_pattern(text), "rows": limit}
        shape = QueryShape(tenant_filter.kind, tenant_filter.with_public, search="contains")
        rows, collections = yield from self._read_rows(build_latest(self, shape), shape, values, limit)
        return serialize_many(self.projection.build_records(rows, collections), self.schema)


class Page:
    """The read of a list: of a tenant, of a row that the caller sees, of an account, or of all rows.

    What the list declares as its `parent` decides: the organization in the path, for which the caller needs
    the permission, the account of the caller (`user_id`), or the row of the model `parent`.

    Args:
        list_query: The list.
        permission: The permission that the caller needs; None for a public operation.
        narrowed_by: The model of the id in a filter, by the name of the filter. Without an organization in
            the request, it is that of the row that narrows the list.
        parent: The model of the row that the list belongs to, if there is one.
        needs_permission: Whether a member without the permission gets 403 for a list of their tenant.
    """

    def __init__(
        self,
        list_query: ListQuery,
        permission: Permission | None = None,
        *,
        narrowed_by: Mapping[str, type[Owned]] | None = None,
        parent: type[Owned] | None = None,
        needs_permission: bool = False,
    ) -> None:
        self._list_query = list_query
        self._parent = None if parent is None else VisibleRows(parent)
        self._narrowed_by = {name: VisibleRows(model) for name, model in (narrowed_by or {}).items()}
        self._needs_permission = needs_permission
        vars(self)["__permission__"] = permission

    def __call__(self, **params: Any) -> Reading[ApiResponse]:
        """Read a page."""
        list_query = self._list_query
        if "now" in list_query.parent:
            params["now"] = utc_now()
        if "user_id" in list_query.parent:
            params["user_id"] = current_caller().user_id
        if "organization_id" in list_query.parent:
            yield from read_permission_in(params["organization_id"])
        if self._parent is not None:
            return (yield from self._read_of_parent(self._parent, params))
        if list_query.is_global or list_query.parent:
            return (yield from list_query.read_page(params))
        organization_id: UUID | None = params.pop("organization_id", None)
        include_public: bool = params.pop("include_public", False)
        organization_id = yield from read_list_organization(organization_id, self._narrowed_by, params)
        yield from read_membership(organization_id)
        if self._needs_permission:
            require_permission_of_member(organization_id)
        if "products" in list_query.filters:
            yield from read_products(params, organization_id)
        tenant_filter = list_filter_of_member(organization_id, include_public)
        return (yield from list_query.read_page(params, tenant_filter))

    def _read_of_parent(self, rows: VisibleRows, params: dict[str, Any]) -> Reading[ApiResponse]:
        (name,) = self._list_query.parent.keys() - {"now"}
        parent = yield from rows.get(params[name])
        organization_id = parent.organization_id and UUID(parent.organization_id)
        yield from read_list_organization(organization_id, self._narrowed_by, params)
        if "products" in self._list_query.filters:
            yield from read_products(params, organization_id)
        tenant_filter = readable_filter() if issubclass(self._list_query.model, Owned) else None
        return (yield from self._list_query.read_page(params, tenant_filter))


def read_list_organization(
    organization_id: UUID | None, narrowed_by: Mapping[str, VisibleRows], params: Mapping[str, Any]
) -> Reading[UUID | None]:
    """Return the organization of a list that the ids of other rows can narrow; None for personal rows.

    Args:
        organization_id: The organization that the request names. If it names none, it is that of the row
            which narrows the list.
        narrowed_by: The rows that the id in a filter is one of.
        params: The parameters of the list.

    Raises:
        NotFound: The caller cannot see one of the rows.
    """
    found = []
    for name, rows in narrowed_by.items():
        if params.get(name) is not None:
            found.append((yield from rows.get(params[name])))
    if organization_id is not None:
        return organization_id
    # A public row is used by many tenants.
    row = next((row for row in found if not getattr(row, "public", False)), None)
    return row and row.organization_id and UUID(row.organization_id)


def read_products(params: dict[str, Any], organization_id: UUID | None) -> Reading[None]:
    """Replace the filters of a list by a product, in place, by the ids of the products, as `products`.

    The ids come from a statement of their own, so that the list compares one id, which an index serves.

    Args:
        params: The parameters of the list. `product_id`, `sku` and `external_id` name a product of the tenant
            or a public one; several name the product that has all of them.
        organization_id: The organization of the list; None for personal rows.

    Raises:
        PermissionDenied: As `db.tenancy.list_filter_of_member`.
    """
    given = {name: params.pop(name, None) for name in PRODUCT_FILTERS}
    values = {name: value for name, value in given.items() if value is not None}
    if values:
        rows = list_filter_of_member(organization_id, include_public=True)
        statement = _select_products(rows.kind, rows.with_public, tuple(values))
        (found,) = yield Step([Query(statement, {**rows.values, **values})])
        params["products"] = [product_id for (product_id,) in found]


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _select_products(kind: RowFilterKind, with_public: bool, names: tuple[str, ...]) -> Select[Any]:
    wanted = [PRODUCT_FILTERS[name] == bindparam(name) for name in names]
    # unscoped: it has the conditions of the row filter
    found = select(Product.id).where(*row_filter(Product, kind, with_public), *wanted)
    return found.order_by(Product.id).limit(MAX_PRODUCTS)


def _format_position(time: datetime | str) -> str:
    """Return a time as cursors have it."""
    return (datetime.fromisoformat(time) if isinstance(time, str) else time).isoformat()


def _decode_cursor(cursor: str, scope: str) -> tuple[Any, UUID]:
    """Return the sort value and the id in a cursor.

    Raises:
        NotFound: The signature is invalid, or the cursor belongs to another list, sort order or filter.
    """
    value, row_id = decode_position(cursor, scope, 2)
    is_text = scope.partition(" ")[0].lstrip("-") in TEXT_SORTS
    return (value if is_text else datetime.fromisoformat(value)), UUID(row_id)


def _slice_ids(ids: str, start: int, count: int) -> str:
    """Return a part of an array of ids, both in the text form of PostgreSQL."""
    return f"{{{ids[1:-1][start * ID_LENGTH : (start + count) * ID_LENGTH].rstrip(',')}}}"
