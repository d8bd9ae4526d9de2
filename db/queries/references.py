"""Find the rows that refer to a row, and delete a row that none refers to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import Column, ColumnElement, ForeignKey, func, or_, select
from sqlalchemy.exc import IntegrityError

from db.base import Base, Identified, Owned
from db.errors import InUse
from db.session import current_session
from db.tenancy import select_visible

MAX_LISTED_IDS = 10

_Reference: TypeAlias = "tuple[Column[Any], Column[Any] | None]"
"""The column with the id of the target and, in a table that links two others, the one with the owner's id."""


def delete_unreferenced(row: Identified) -> None:
    """Delete a locked row.

    Raises:
        InUse: Other rows refer to it. The error counts those that the caller may read.
    """
    session = current_session()
    try:
        with session.begin_nested():
            session.delete(row)
            session.flush()
    except IntegrityError as error:
        raise InUse(conflicts_with=find_conflicts(row)) from error


def find_conflicts(row: Identified) -> list[dict[str, Any]]:
    """Return the `conflicts_with` of a problem: the rows that refer to a row and that the caller may read."""
    return describe_references(list_references(row))


def describe_references(references: Mapping[type[Owned], ColumnElement[bool]]) -> list[dict[str, Any]]:
    """Return the `conflicts_with` of a problem: the rows of each model that a condition selects.

    Rows that the caller may not read are left out.
    """
    conflicts = []
    for model, refers in references.items():
        first = select_visible(model).where(refers).with_only_columns(model.id, func.count().over())
        found = current_session().execute(first.order_by(model.id).limit(MAX_LISTED_IDS)).all()
        if found:
            ids = [row_id for row_id, _ in found]
            conflicts.append(describe_conflict(resource_type(model), ids, found[0][1]))
    return sorted(conflicts, key=lambda conflict: str(conflict["resource_type"]))


def describe_conflict(resource_type: str, ids: Sequence[UUID], count: int | None = None) -> dict[str, Any]:
    """Return an item of `conflicts_with`: the number of resources of a type, and the ids of the first ten."""
    listed = [str(row_id) for row_id in ids[:MAX_LISTED_IDS]]
    return {"resource_type": resource_type, "count": len(ids) if count is None else count, "ids": listed}


def list_references(row: Identified) -> Mapping[type[Owned], ColumnElement[bool]]:
    """Return the models whose rows can refer to a row, each with the condition of the rows that do.

    References that the deletion of the row deletes or clears are left out. A table that only links two others
    counts as the resource whose list it holds: a product in a look is a reference of the look.
    """
    return select_references(type(row), [row.id], ("CASCADE", "SET NULL"))


def select_references(
    target: type[Identified], row_ids: Sequence[UUID], ignored: tuple[str, ...]
) -> Mapping[type[Owned], ColumnElement[bool]]:
    """Return the models whose rows can refer to rows of a model, each with the condition of the rows that do.

    Args:
        target: The model of the referenced rows.
        row_ids: Their ids.
        ignored: The actions `ON DELETE` of foreign keys that do not count.
    """
    return {
        model: or_(
            *(
                column.in_(row_ids) if link is None else model.id.in_(select(link).where(column.in_(row_ids)))
                for column, link in columns
            )
        )
        for model, columns in _find_columns(target, ignored).items()
    }


@lru_cache(maxsize=64)
def _find_columns(
    target: type[Identified], ignored: tuple[str, ...]
) -> Mapping[type[Owned], list[_Reference]]:
    found: dict[type[Owned], list[_Reference]] = defaultdict(list)
    keys = [(mapper.class_, key) for mapper in Base.registry.mappers for key in foreign_keys(mapper.class_)]
    for model, key in keys:
        if key.column.table is not target.__table__ or key.ondelete in ignored:
            continue
        if issubclass(model, Owned):
            found[model].append((key.parent, None))
        elif owning := next((other for other in foreign_keys(model) if other.ondelete == "CASCADE"), None):
            found[_model_of(owning)].append((key.parent, owning.parent))
    return dict(found)


def foreign_keys(model: type[Base]) -> list[ForeignKey]:
    """Return the foreign keys of a model's table."""
    return [key for column in model.__table__.columns for key in column.foreign_keys]


def _model_of(key: ForeignKey) -> type[Owned]:
    return next(mapper.class_ for mapper in Base.registry.mappers if mapper.local_table is key.column.table)


def resource_type(model: type[Base]) -> str:
    """Return the name of a resource in the contract, such as `subject_base_image`."""
    name = str(model.__tablename__)
    return name if name == "guidelines" else name.removesuffix("s")
