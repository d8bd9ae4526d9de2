"""Rows that are only shown: named values with what they refer to, read without making entities of them.

An entity can be changed, and carries what it takes to notice that: in a list of a hundred products this was
half of the work of the whole request. A record has those attributes of the entity in whose place it stands
that were asked for; its ids are text. What belongs to a row in any number, such as photographs, comes by one
more statement for all rows.
"""

from __future__ import annotations

from collections import defaultdict, namedtuple
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Boolean, ColumnElement, Dialect, Row, Select, Text, Uuid, bindparam, inspect, select
from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import QueryableAttribute, RelationshipProperty, aliased
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from db.session import current_session

Record = Any
"""A named tuple: columns of a row, rows that it refers to, lists of those that belong to it."""
Paths = Mapping[str, "Paths"]
"""Names of attributes, each with the names of what is read of it."""

ALL_COLUMNS = "*"
_ID: Paths = {"id": {}}


class Projection:
    """Reads what `paths` names of the rows of a model: `name`, `cover_media.width`, `images.media.id`.

    A path leads over references, and may begin with a collection; `*` stands for every column. AttributeError
    for what the model does not have, TypeError for a collection further on. Made once, it serves any number
    of transactions.
    """

    def __init__(self, model: type[Any], paths: Iterable[str]) -> None:
        tree = _build_tree(paths)
        self._collections = {
            name: found for name in tree if (found := _find_collection(model, name, tree[name])) is not None
        }
        own = {name: below for name, below in tree.items() if name not in self._collections}
        self._row = _RowProjection(model, {**_ID, **own}, tuple(self._collections))

    def apply(self, query: Select[Any]) -> Select[Any]:
        """The query with what is read in place of its columns; others may be added."""
        return _apply_columns(query, self._row.columns, self._row.joins)

    def fetch_records(self, rows: Sequence[Row[Any]]) -> list[Record]:
        """The records of rows that a narrowed query found."""
        ids = [row[0] for row in rows]
        found = [collection.load_by_parent(ids) for collection in self._collections.values()] if rows else ()
        return [self._row.build_record(row, *(of[row[0]] for of in found)) for row in rows]


class _RowProjection:
    """One row and those that it refers to, as columns of a statement that follow each other."""

    def __init__(self, entity: Any, tree: Paths, collections: tuple[str, ...] = (), start: int = 0) -> None:
        mapper = inspect(entity).mapper
        related = [name for name in tree if name in mapper.relationships]
        names = [name for name in tree if name not in related and name != ALL_COLUMNS]
        if ALL_COLUMNS in tree:
            names += [column.key for column in mapper.column_attrs if column.key not in tree]
        self.columns = [_select_expression(getattr(entity, name)) for name in names]
        self.joins: list[QueryableAttribute[Any]] = []
        self._own = slice(start, start + len(names))
        self._references: list[_RowProjection] = []
        for name in related:
            if mapper.relationships[name].uselist:
                raise TypeError(f"{name} is a collection: a path can only begin with one")
            target = aliased(mapper.relationships[name].mapper.class_)
            part = _RowProjection(target, {**_ID, **tree[name]}, start=start + len(self.columns))
            self.columns += part.columns
            self.joins += [getattr(entity, name).of_type(target), *part.joins]
            self._references.append(part)
        self._make = _build_record_type((*names, *related, *collections))._make

    def build_record(self, row: Row[Any], *collections: list[Record]) -> Record:
        """The record that the row of a statement holds."""
        own = row[self._own]
        if not self._references and not collections:
            return self._make(own)
        return self._make((*own, *[one.build_reference(row) for one in self._references], *collections))

    def build_reference(self, row: Row[Any]) -> Record | None:
        """The record, None when there is none: an id comes first."""
        return None if row[self._own.start] is None else self.build_record(row)


class _CollectionProjection:
    """The rows of a relationship, of many rows at once; of a list of values each is one column of them."""

    def __init__(self, relationship: RelationshipProperty[Any], tree: Paths, is_of_values: bool) -> None:
        entity = relationship.mapper.class_
        ((_, column),) = relationship.local_remote_pairs
        parent = getattr(entity, relationship.mapper.get_property_by_column(column).key)
        part = _RowProjection(entity, tree, start=1)
        query = (
            select(entity)
            .where(_AnyOf(parent, bindparam("ids", type_=_IdArray())))
            .order_by(*relationship.order_by or ())
        )
        self._statement = _apply_columns(query, [_select_expression(parent), *part.columns], part.joins)
        self._read = itemgetter(1) if is_of_values else part.build_record

    def load_by_parent(self, ids: Sequence[str]) -> Mapping[str, list[Any]]:
        """What belongs to the rows with these ids, by id, in the order of the relationship."""
        found: defaultdict[str, list[Any]] = defaultdict(list)
        for row in current_session().execute(self._statement, {"ids": ids}):
            found[row[0]].append(self._read(row))
        return found


def _build_record_type(names: Sequence[str]) -> Any:
    return namedtuple("Record", names)


def _build_tree(paths: Iterable[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in paths:
        below = tree
        for name in path.split("."):
            below = below.setdefault(name, {})
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
    narrowed = query.with_only_columns(*columns, maintain_column_froms=True)
    for attribute in joins:
        narrowed = narrowed.outerjoin(attribute)
    return narrowed


def _select_expression(column: QueryableAttribute[Any]) -> Any:
    return _IdAsText(column) if isinstance(column.type, Uuid) else column


class _IdText(TypeDecorator[str]):
    """The text of an id, which PostgreSQL writes itself."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(UUID(value))

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return super().result_processor(dialect, coltype) if dialect.name == "sqlite" else None


class _IdAsText(FunctionElement[str]):
    type = _IdText()
    inherit_cache = True


@compiles(_IdAsText)
def _compile_plain(element: _IdAsText, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_IdAsText, "postgresql")
def _compile_cast_to_text(element: _IdAsText, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS TEXT)"


class _IdArray(TypeDecorator[Sequence[str]]):
    """Any number of ids as one value: a statement with one for each would be written anew for each number."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> str:
        ids = value or ()
        if dialect.name == "postgresql":
            return "{" + ",".join(ids) + "}"
        return orjson.dumps([each.replace("-", "") for each in ids]).decode()


class _AnyOf(FunctionElement[bool]):
    """Whether a column is one of `_Ids`."""

    type = Boolean()
    inherit_cache = True


@compiles(_AnyOf)
def _compile_in_json(element: _AnyOf, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608 - columns that were compiled


@compiles(_AnyOf, "postgresql")
def _compile_in_array(element: _AnyOf, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} = ANY (CAST({ids} AS UUID[]))"
