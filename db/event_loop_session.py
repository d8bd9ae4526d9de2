"""The session of a write that runs on the event loop: what plain writes use of a `Session`, in few messages.

The write runs in a greenlet: it calls this session like a blocking one, and the event loop serves other
requests while PostgreSQL works. A statement whose result is not used, such as an INSERT, is sent together
with the next query or with COMMIT. What this session cannot do raises `SessionNeeded`, and so does every
error: the transaction is rolled back, and a thread serves the request from the start, with a `Session`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Self, cast

from sqlalchemy import Delete, Select, Table, Update, bindparam, delete, inspect, update
from sqlalchemy.util import await_only

from db.base import Identified, utc_now
from db.fast_path.driver_statement import MessageConnection, Statement
from db.fast_path.entities import EntityLoader
from db.libpq.reader import Sent, Transaction
from db.libpq.statements import Query, Row

MAX_RELATED_ROWS = 20
"""Rows of a collection that the event loop builds and serializes; more would take it milliseconds."""


_Receive = Callable[["EventLoopSession", Any, list[Row]], None]
_loaded_with: dict[type[Identified], tuple[Select[Any], _Receive]] = {}


def load_with(model: type[Identified], statement: Select[Any], receive: _Receive) -> None:
    """Run a query together with each one that locks a row of a model.

    Args:
        model: The model.
        statement: A query of columns with the parameter `row_id`.
        receive: Called with the session, the entity of the row, and the rows of the query.
    """
    _loaded_with[model] = statement, receive


class SessionNeeded(Exception):
    """The request must be served in a thread, with a `Session`."""


class _Values(list[Any]):
    """The values of one column, with the methods of a result that plain writes call."""

    def all(self) -> list[Any]:
        """Return the values."""
        return self


class EventLoopSession(MessageConnection):
    """A transaction on the event loop, with methods that are named as those of `Session` and `Connection`.

    Args:
        transaction: The transaction.
        info: As `Session.info`.
        record: Called with each row that is written (`db.audit.record_flush`).
    """

    def __init__(self, transaction: Transaction, info: dict[str, Any], record: Callable[..., None]) -> None:
        self.info = info
        self._record = record
        self._transaction = transaction
        self._pending: list[tuple[Query, list[Row] | None]] = []
        self._entities: list[Identified] = []

    def expect(self, statement: Statement, values: Mapping[str, Any], rows: list[Row]) -> None:
        """Run a query with the next message; other rows than these raise SessionNeeded."""
        self._pending.append((Query(statement, values), rows))

    def run_later(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement, at the latest with the commit."""
        self._pending.append((Query(statement, values), None))

    def run(self, queries: Sequence[Query], commits: bool = False) -> list[Sent]:
        """Run the pending statements and these queries in one message; return the results of these."""
        if commits and any(expected is not None for _, expected in self._pending):
            # What is expected is compared before the commit.
            self.run(())
        pending, self._pending = self._pending, []
        sent = await_only(self._transaction.send([*(query for query, _ in pending), *queries], commits))
        for (_, expected), received in zip(pending, sent, strict=False):
            if expected is not None and received.rows != expected:
                raise SessionNeeded
        return sent[len(pending) :]

    def run_one(self, statement: Statement, values: Mapping[str, Any]) -> Sent:
        """Run a statement now."""
        return self.run([Query(statement, values)])[0]

    def load_locked(self, statement: Select[Any], loader: EntityLoader, values: Mapping[str, Any]) -> Any:
        """Return the entity that a locking statement finds; `flush` writes its changes.

        Args:
            statement: Selects the row by the parameter `row_id`.
            loader: The loader that was applied to the statement.
            values: The parameters.
        """
        of_row = {"row_id": values["row_id"]}
        queries = [Query(statement, values), *(Query(each, of_row) for each in loader.collections)]
        with_row = _loaded_with.get(loader.model)
        if with_row is not None:
            queries.append(Query(with_row[0], of_row))
        found, *others = self.run(queries)
        collections = others[: len(loader.collections)]
        if not found.rows or any(len(each.rows) > MAX_RELATED_ROWS for each in collections):
            raise SessionNeeded
        entity = loader.build(found.rows[0], [collection.rows for collection in collections])
        self._entities.append(entity)
        if with_row is not None:
            with_row[1](self, entity, others[-1].rows)
        return entity

    # Named as in `Session`:

    def connection(self) -> Self:
        """Return this session."""
        return self

    def execute(self, statement: Any, values: Mapping[str, Any] | None = None) -> list[Row]:
        """Return the rows of a query of columns."""
        if not isinstance(statement, Select) or _selects_entities(statement):
            raise SessionNeeded
        return self.run_one(statement, values or {}).rows

    def scalars(self, statement: Any, values: Mapping[str, Any] | None = None) -> _Values:
        """Return the values of a query of one column."""
        return _Values(row[0] for row in self.execute(statement, values))

    def scalar(self, statement: Any, values: Mapping[str, Any] | None = None) -> Any:
        """Return the first value of a query of one column, None for no row."""
        return next(iter(self.scalars(statement, values)), None)

    def delete(self, row: Identified) -> None:
        """Delete a loaded row, at the latest with the commit."""
        self._entities.remove(row)
        self._record(row, is_deleted=True)
        self.run_later(_build_delete(type(row)), {"row_id": row.id})

    def flush(self) -> None:
        """Write the changes of the loaded rows, at the latest with the commit."""
        for row in self._entities:
            if changes := _list_changes(row):
                row.updated_at = changes["updated_at"] = utc_now()
                self._record(row)
                self.run_later(_build_update(type(row), tuple(changes)), {**changes, "row_id": row.id})
                inspect(row)._commit_all(inspect(row).dict)

    def is_modified(self, row: Identified) -> bool:
        """Return whether a loaded row has changes that are not written."""
        return bool(_list_changes(row))

    @contextmanager
    def begin_nested(self) -> Iterator[None]:
        """Run the block without a savepoint: any error of a statement ends this session."""
        yield

    def commit(self) -> None:
        """Send what is pending, and commit."""
        self.flush()
        self.run((), commits=True)


def _list_changes(row: Identified) -> dict[str, Any]:
    """Return the new values of the columns that differ from the stored ones, by attribute.

    Raises:
        SessionNeeded: A relationship has changed.
    """
    state = inspect(row)
    columns, changes = state.mapper.column_attrs, {}
    for name, before in state.committed_state.items():
        if name not in columns or row.internal_columns:
            raise SessionNeeded
        value = state.dict.get(name)
        if not state.manager[name].impl.is_equal(value, before):
            changes[name] = value
    return changes


@lru_cache(maxsize=512)
def _build_update(model: type[Identified], names: tuple[str, ...]) -> Update:
    columns: dict[Any, Any] = {
        inspect(model).column_attrs[name].columns[0]: bindparam(name) for name in names
    }
    table = cast("Table", model.__table__)
    return update(table).where(table.c.id == bindparam("row_id")).values(columns)


@lru_cache(maxsize=64)
def _build_delete(model: type[Identified]) -> Delete:
    table = cast("Table", model.__table__)
    return delete(table).where(table.c.id == bindparam("row_id"))


@lru_cache(maxsize=512)
def _selects_entities(statement: Select[Any]) -> bool:
    return any(each["entity"] is each["expr"] for each in statement.column_descriptions)
