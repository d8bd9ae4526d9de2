"""Projections: read the columns that a response shows, with referenced rows, without creating ORM entities.

An entity tracks changes, which a response never needs. In a list of a hundred products this was half of the
work of the whole request. A record is a named tuple with the requested attributes of an entity; its ids and
times are text, as JSON needs them (times in RFC 3339 with microseconds and `Z`). Where a path is `*`, times
keep their type. A collection, such as a product's photos, takes one more statement for all rows.

Benchmark: `make bench-profile`, columns "list 20" and "list 100"; `make bench-lists` for large tables.
"""

from __future__ import annotations

from collections import defaultdict, namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    func,
    inspect,
    literal_column,
    select,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.orm import QueryableAttribute, RelationshipProperty, aliased

from db.base import UtcDateTime
from db.fast_path.source import SourceBuilder
from db.libpq.statements import Query, Row

Record = Any
"""A named tuple: columns of a row, records that it refers to, lists of records that belong to it."""
Paths = Mapping[str, "Paths"]
"""A tree of attribute names: each name maps to the names read from that attribute."""

ALL_COLUMNS = "*"
_TIME_FORMAT = literal_column("""'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'""", Text())
# Read in any case: the id tells a missing reference and links collections to their rows.
_ID: Paths = {"id": {}}


class Projection:
    """Reads attributes of the rows of a model, named by paths such as `name` or `cover_media.width`.

    Build it once per model and paths, then use it in any number of transactions.

    Args:
        model: The model whose rows are read.
        paths: Paths over references. A path may begin with a collection (`images.media.id`); `*` stands for
            every column.

    Raises:
        AttributeError: The model has no such attribute.
        TypeError: A path contains a collection after its first name.
    """

    def __init__(self, model: type[Any], paths: Iterable[str]) -> None:
        tree = build_tree(paths)
        self._collections = {
            name: collection
            for name in tree
            if (collection := _find_collection(model, name, tree[name])) is not None
        }
        own = {name: subtree for name, subtree in tree.items() if name not in self._collections}
        # First, so that the id is the first column.
        self._row = _RowProjection(model, {**_ID, **own}, tuple(self._collections))

    def apply(self, query: Select[Any]) -> Select[Any]:
        """Return the query with the columns and joins of this projection; the caller may add columns."""
        return _apply_columns(query, self._row.columns, self._row.joins)

    @property
    def has_collections(self) -> bool:
        """Whether rows have collections, which take statements of their own."""
        return bool(self._collections)

    def collection_queries(self, ids: Sequence[str]) -> list[Query]:
        """Return the queries of the collections of the rows with these ids, for `build_records`."""
        # Any number of ids as one parameter, so that one compiled statement serves every number of ids.
        values = {"ids": "{" + ",".join(ids) + "}"}
        return [Query(collection.of_ids, values) for collection in self._collections.values()]

    def collections_of(self, ids: Select[Any]) -> list[Select[Any]]:
        """Return the statements of the collections of the rows whose ids a query selects."""
        return [collection.select_of(ids) for collection in self._collections.values()]

    def build_records(self, rows: Sequence[Row], collections: Sequence[Sequence[Row]]) -> list[Record]:
        """Return the records of the rows that a query from `apply` found.

        Args:
            rows: The rows; columns that the caller has added do not matter.
            collections: The rows that each statement of the collections found.
        """
        grouped = [
            collection.group_by_parent(found)
            for collection, found in zip(self._collections.values(), collections, strict=True)
        ]
        return self._row.build_records(rows, *grouped)


class _RowProjection:
    """A row and the rows it refers to, as consecutive columns of one statement."""

    def __init__(self, entity: Any, tree: Paths, collections: tuple[str, ...] = (), start: int = 0) -> None:
        mapper = inspect(entity).mapper
        related = [name for name in tree if name in mapper.relationships]
        names = [name for name in tree if name not in related and name != ALL_COLUMNS]
        if ALL_COLUMNS in tree:
            names += [column.key for column in mapper.column_attrs if column.key not in tree]
        # Every column is read for functions of a schema, which may calculate with times.
        keeps_times = ALL_COLUMNS in tree
        self.columns = [_select_expression(getattr(entity, name), keeps_times) for name in names]
        self.joins: list[QueryableAttribute[Any]] = []
        self._own = slice(start, start + len(names))
        self._references: list[_RowProjection] = []
        for name in related:
            if mapper.relationships[name].uselist:
                raise TypeError(f"{name} is a collection: a path can only begin with one")
            # An alias, because two references of a row may lead to the same table.
            target = aliased(mapper.relationships[name].mapper.class_)
            part = _RowProjection(target, {**_ID, **tree[name]}, start=start + len(self.columns))
            self.columns += part.columns
            self.joins += [getattr(entity, name).of_type(target), *part.joins]
            self._references.append(part)
        # Named tuples have attributes, like entities, and are cheap to create.
        self._record_type = _build_record_type((*names, *related, *collections))
        self.build_records = self._compile(len(collections))
        """Return the records of rows; for each collection, pass the related records by row id."""

    def _compile(self, collections: int) -> Callable[..., list[Record]]:
        builder = SourceBuilder()
        names = [builder.new_variable() for _ in range(collections)]
        record = self._write_record(builder, [f"{name}[row[0]]" for name in names])
        source = f"def build_records({', '.join(['rows', *names])}): return [{record} for row in rows]"
        return cast("Callable[..., list[Record]]", builder.compile("build_records", source))

    def _write_record(self, builder: SourceBuilder, more: Sequence[str] = ()) -> str:
        """Return the expression of the record in `row`. `more` are the expressions of its last attributes."""
        values = own = f"row[{self._own.start}:{self._own.stop}]"
        related = [
            # The first column is the id, which is null only if the outer join found no row.
            f"(None if row[{reference._own.start}] is None else {reference._write_record(builder)})"
            for reference in self._references
        ]
        if related or more:
            values = f"(*{own}, {', '.join([*related, *more])})"
        # What `_make` does, without its call.
        return f"{builder.refer(tuple.__new__)}({builder.refer(self._record_type)}, {values})"


class _CollectionProjection:
    """The related rows of a collection, loaded for many parents at once.

    With `is_of_values` each element is one column of the related row, not a record.
    """

    def __init__(self, relationship: RelationshipProperty[Any], tree: Paths, is_of_values: bool) -> None:
        entity = relationship.mapper.class_
        # The column of the related table that refers to the parent.
        ((_, column),) = relationship.local_remote_pairs
        parent = getattr(entity, relationship.mapper.get_property_by_column(column).key)
        part = _RowProjection(entity, tree, start=1)
        query = select(entity).order_by(*relationship.order_by or ())
        self._parent = parent
        self._query = _apply_columns(query, [_select_expression(parent), *part.columns], part.joins)
        self.of_ids = self.select_of(any_(sql_cast(bindparam("ids", type_=Text()), ARRAY(Uuid()))))
        """The statement for rows by their ids: `ids` is the text of an array."""
        self._build: Callable[[Sequence[Row]], Iterable[Any]] = (
            partial(map, itemgetter(1)) if is_of_values else part.build_records
        )

    def select_of(self, ids: Any) -> Select[Any]:
        """Return the statement for the parents whose ids a query or an array has."""
        return self._query.where(self._parent.in_(ids) if isinstance(ids, Select) else self._parent == ids)

    def group_by_parent(self, rows: Sequence[Row]) -> Mapping[str, list[Any]]:
        """Return the related records by parent id, in the order of the relationship."""
        records: defaultdict[str, list[Any]] = defaultdict(list)
        for row, record in zip(rows, self._build(rows), strict=True):
            records[row[0]].append(record)
        return records


def _build_record_type(names: Sequence[str]) -> Any:
    return namedtuple("Record", names)


def build_tree(paths: Iterable[str]) -> dict[str, Any]:
    """Return the tree of paths."""
    tree: dict[str, Any] = {}
    for path in paths:
        node = tree
        for name in path.split("."):
            node = node.setdefault(name, {})
    return tree


def _find_collection(model: type[Any], name: str, tree: Paths) -> _CollectionProjection | None:
    mapper = inspect(model)
    if isinstance(mapper.all_orm_descriptors.get(name), AssociationProxy):
        proxy = getattr(model, name)
        return _CollectionProjection(
            mapper.relationships[proxy.target_collection], {proxy.value_attr: {}}, True
        )
    if name in mapper.relationships and mapper.relationships[name].uselist:
        return _CollectionProjection(mapper.relationships[name], tree, False)
    return None


def _apply_columns(
    query: Select[Any], columns: Sequence[ColumnElement[Any]], joins: Iterable[QueryableAttribute[Any]]
) -> Select[Any]:
    # `maintain_column_froms` keeps the FROM clause even if no column of the main table is left.
    projected = query.with_only_columns(*columns, maintain_column_froms=True)
    for attribute in joins:
        projected = projected.outerjoin(attribute)
    return projected


def _select_expression(column: QueryableAttribute[Any], keeps_times: bool = False) -> Any:
    if isinstance(column.type, UtcDateTime) and not keeps_times:
        return func.to_char(column, _TIME_FORMAT, type_=Text())
    # A label, because the session finds a column of a row by its name: two ids would have the same.
    return sql_cast(column, Text()).label(None) if isinstance(column.type, Uuid) else column
