"""Load one row as an entity without a session, with what a schema shows of it.

An entity tracks its changes, which an update needs; setting up its loading and its identity in a session
takes as long as the rest of the update. An attribute that was not loaded raises an error when it is read.

Benchmark: `make bench-profile`, column "update with If-Match".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Column, Select, bindparam, inspect, select
from sqlalchemy.ext.associationproxy import AssociationProxy
from sqlalchemy.orm import QueryableAttribute, aliased, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from db.fast_path.projections import Paths, build_tree
from db.libpq.statements import Row


class EntityLoader:
    """Loads a row of a model, the rows that it refers to, and those of its collections.

    Args:
        model: The model.
        paths: The attributes that are read, as for a `Projection`. All columns of the row are loaded.

    Raises:
        TypeError: A path leads from a collection to another one.
    """

    def __init__(self, model: type[Any], paths: Sequence[str]) -> None:
        self.model = model
        mapper = inspect(model)
        tree = build_tree(paths)
        for name in [
            name for name in tree if isinstance(mapper.all_orm_descriptors.get(name), AssociationProxy)
        ]:
            tree[getattr(model, name).target_collection] = {getattr(model, name).value_attr: {}}
        self._collections = {
            name: _Collection(getattr(model, name), tree[name])
            for name in tree
            if name in mapper.relationships and mapper.relationships[name].uselist
        }
        columns: Paths = {name: {} for name in _list_columns(model)}
        own = {name: subtree for name, subtree in tree.items() if name not in self._collections}
        self._part = _Part(model, {**columns, **own})

    def apply(self, query: Select[Any]) -> Select[Any]:
        """Return a query for rows of the model with the columns and joins of this loader."""
        return self._part.apply(query)

    @property
    def collections(self) -> list[Select[Any]]:
        """The queries of the collections of the row with the id `row_id`."""
        return [collection.query for collection in self._collections.values()]

    def build(self, row: Row, collections: Sequence[Sequence[Row]]) -> Any:
        """Return the entity of a row that a query from `apply` found, and of the rows of its collections."""
        entity = self._part.build(row)
        for (name, collection), rows in zip(self._collections.items(), collections, strict=True):
            set_committed_value(entity, name, [collection.build(each) for each in rows])
        return entity


class _Part:
    """An entity and those it refers to, as consecutive columns of a row."""

    def __init__(self, entity: Any, tree: Paths, start: int = 0) -> None:
        mapper = inspect(entity).mapper
        self._model: type[Any] = mapper.class_
        related = [name for name in tree if name in mapper.relationships]
        self._names = [name for name in tree if name in mapper.column_attrs]
        self._start, self._end = start, start + len(self._names)
        self._columns = [getattr(entity, name) for name in self._names]
        self._joins: list[QueryableAttribute[Any]] = []
        self._references: dict[str, _Part] = {}
        for name in related:
            if mapper.relationships[name].uselist:
                raise TypeError(f"{name} is a collection of a collection")
            target = aliased(mapper.relationships[name].mapper.class_)
            # The id comes first: it tells a missing reference.
            part = _Part(target, {"id": {}, **tree[name]}, start + len(self._columns))
            self._columns += part._columns
            self._joins += [getattr(entity, name).of_type(target), *part._joins]
            self._references[name] = part

    def apply(self, query: Select[Any]) -> Select[Any]:
        """Return the query with the columns and joins of this part."""
        columns = [column.label(None) for column in self._columns]
        query = query.with_only_columns(*columns, maintain_column_froms=True)
        for attribute in self._joins:
            query = query.outerjoin(attribute)
        return query

    def build(self, row: Row) -> Any:
        """Return the entity."""
        entity = inspect(self._model).class_manager.new_instance()
        entity.__dict__.update(zip(self._names, row[self._start : self._end], strict=True))
        for name, part in self._references.items():
            entity.__dict__[name] = None if row[part._start] is None else part.build(row)
        make_transient_to_detached(entity)
        return entity


class _Collection:
    """The entities of a collection of one row."""

    def __init__(self, relationship: Any, tree: Paths) -> None:
        model = relationship.property.mapper.class_
        ((_, column),) = relationship.property.local_remote_pairs
        keys: Paths = {column.key: {} for column in inspect(model).primary_key}
        part = _Part(model, {**keys, **tree})
        query = select(model).where(column == bindparam("row_id"))
        self.query = part.apply(query.order_by(*relationship.property.order_by or ()))
        self.build: Callable[[Row], Any] = part.build


def _list_columns(model: type[Any]) -> list[str]:
    return [each.key for each in inspect(model).column_attrs if isinstance(each.columns[0], Column)]
