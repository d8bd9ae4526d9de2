"""Declare reads: what a GET reads, as data or as a generator function that yields queries.

`handlers.pipeline.reads` runs a read on the event loop. It sends the queries of a step in one message,
together with the one that loads the caller, and sends their rows back. What a read returns is its response;
an exception becomes a problem. A read never has a session.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from marshmallow import Schema
from sqlalchemy import Select, bindparam, select

from db.base import Identified, Owned
from db.caller import require_permission_for, require_permission_of_member, select_if_unknown
from db.errors import NotFound
from db.fast_path.projections import Projection, Record
from db.libpq.statements import Query, Row
from db.tenancy import readable_filter, select_row
from handlers.common.permissions import Permission
from handlers.common.responses import ApiResponse, ok
from handlers.schemas.serializer import list_attribute_paths

Value = TypeVar("Value")


class Step(NamedTuple):
    """Queries that are sent in one message.

    Attributes:
        queries: The queries, in their order.
        is_snapshot: Whether all of them must see the database at the same moment.
    """

    queries: Sequence[Query]
    is_snapshot: bool = False


Reading = Generator[Step, list[list[Row]], Value]
"""A read, or a part of it: it yields steps and gets the rows of each of their queries."""


class One:
    """The read of one row by its id: 404 if the caller does not see it, 403 without the permission.

    An argument that is a column of the model, such as the parent in the path, is a condition. The other one
    is the id.

    Args:
        model: The model of the row.
        schema: The schema that serializes it.
        permission: The permission that the caller needs.
    """

    def __init__(self, model: type[Owned], schema: type[Schema], permission: Permission) -> None:
        self._model, self._schema = model, schema
        self._rows = VisibleRows(model, schema)
        vars(self)["__permission__"] = permission

    def __call__(self, **arguments: UUID) -> Reading[ApiResponse]:
        """Read the row."""
        (row_id,) = (value for name, value in arguments.items() if not hasattr(self._model, name))
        where = {name: value for name, value in arguments.items() if hasattr(self._model, name)}
        return ok((yield from self._rows.get(row_id, **where)), self._schema)


class Rows:
    """Rows of a model that are found by values of their columns, without a tenant filter.

    For rows that the read has checked the access to: those of an organization or an account, and global ones.

    Args:
        model: The model.
        schema: The schema that serializes a row.
    """

    def __init__(self, model: type[Identified], schema: type[Schema]) -> None:
        self._model, self._schema = model, schema
        self._statements: dict[tuple[str, ...], Select[Any]] = {}

    @cached_property
    def _projection(self) -> Projection:
        return Projection(self._model, list_attribute_paths(self._schema()))

    def get(self, row_id: UUID, **where: Any) -> Reading[Record]:
        """Return the one row whose columns have these values.

        Raises:
            NotFound: There is no such row; the error names `row_id`.
        """
        names = tuple(where)
        if (statement := self._statements.get(names)) is None:
            found = select(self._model).where(
                *(getattr(self._model, name) == bindparam(name) for name in names)
            )
            self._statements[names] = statement = self._projection.apply(found)
        (rows,) = yield Step([Query(statement, where)])
        if not rows:
            raise NotFound(value=row_id)
        collections = []
        if self._projection.has_collections:
            collections = yield Step(self._projection.collection_queries([rows[0][0]]))
        return self._projection.build_records(rows, collections)[0]

    def ok(self, row_id: UUID, **where: Any) -> Reading[ApiResponse]:
        """Return the response with the row of `get`."""
        return ok((yield from self.get(row_id, **where)), self._schema)


class VisibleRows:
    """Rows of a model that the caller sees, with what a schema shows of them.

    Args:
        model: The model.
        schema: The schema; None for rows that only give access to others.
    """

    def __init__(self, model: type[Owned], schema: type[Schema] | None = None) -> None:
        self._model, self._schema = model, schema
        self._statements: dict[tuple[Any, ...], Select[Any]] = {}

    @cached_property
    def _projection(self) -> Projection:
        shown = [] if self._schema is None else list_attribute_paths(self._schema())
        public = ["public"] if hasattr(self._model, "public") else []
        return Projection(self._model, [*shown, "organization_id", "owner_id", *public])

    def get(self, row_id: UUID, **where: Any) -> Reading[Record]:
        """Return one row after the permission check.

        Args:
            row_id: The id of the row.
            where: Further columns, with the values that they must have.

        Raises:
            NotFound: There is no such row, or the caller may not see it.
            PermissionDenied: The caller sees the row but lacks the running operation's permission there.
        """
        rows = readable_filter(with_withheld=True)
        key = (rows.kind, *where)
        if (statement := self._statements.get(key)) is None:
            statement = self._projection.apply(select_row(self._model, rows.kind, tuple(where)))
            self._statements[key] = statement
        query = Query(statement, {"row_id": row_id, **rows.values, **where})
        found, *collections = yield Step([query, *self._projection.collection_queries([str(row_id)])])
        if not found:
            # One error for absent rows and rows of other tenants: a different one would confirm the id.
            raise NotFound(value=row_id)
        (record,) = self._projection.build_records(found, collections)
        # Rows of the system belong to no account.
        require_permission_for(
            *(value and UUID(value) for value in (record.organization_id, record.owner_id))
        )
        return record


def read_membership(organization_id: UUID | None) -> Reading[None]:
    """Check that the caller is a member of an organization; None needs no check.

    Raises:
        NotFound: The caller is not a member, or the organization does not exist.
    """
    existing = None if organization_id is None else select_if_unknown(organization_id)
    if existing is not None:
        (found,) = yield Step([Query(existing, {})])
        if not found:
            raise NotFound(value=organization_id)


def read_permission_in(organization_id: UUID | None) -> Reading[None]:
    """Check the running operation's permission in an organization, or on personal rows if it is None.

    Raises:
        NotFound: The caller is not a member of the organization.
        PermissionDenied: The caller's role lacks the permission.
    """
    yield from read_membership(organization_id)
    require_permission_of_member(organization_id)


def is_read(handler: Callable[..., object]) -> bool:
    """Return whether a handler is a read, which has no session."""
    return inspect.isgeneratorfunction(handler) or inspect.isgeneratorfunction(type(handler).__call__)
