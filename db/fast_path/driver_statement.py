"""Run a statement of SQLAlchemy Core on the driver's cursor, without SQLAlchemy's execution.

The context and the result of an execution cost as much CPU time as the driver and the system calls of a
statement that reads or writes one row. This is for the statements that most requests run; others gain little.

Benchmark: `make bench-profile`, column "create", and the costs of an audit event and of an idempotency key in
`make bench`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from sqlalchemy import JSON, Connection, Dialect, Select, UpdateBase

from db.fast_path.json_columns import dump_json

Statement = Select[Any] | UpdateBase


class _Compiled(NamedTuple):
    """A statement for the driver, with the functions that convert its parameters."""

    text: str
    constants: Mapping[str, Any]
    processors: tuple[tuple[str, Callable[[Any], Any]], ...]


class MessageConnection(ABC):
    """A connection that sends several statements in one message (`db/event_loop_session.py`)."""

    @abstractmethod
    def run_one(self, statement: Statement, values: Mapping[str, Any]) -> Any:
        """Run a statement; return its `rows` and its `row_count`."""

    @abstractmethod
    def expect(self, statement: Statement, values: Mapping[str, Any], rows: list[tuple[Any, ...]]) -> None:
        """Run a query before the transaction commits, and end the transaction if it returns other rows."""

    @abstractmethod
    def run_later(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement, at the latest when the transaction commits."""


class DriverStatement:
    """A statement that the driver runs directly.

    SQLAlchemy runs it if something listens to `before_cursor_execute`. Errors are those of SQLAlchemy in both
    cases. Rows hold the values of the driver: the types of our models convert none of them.

    Args:
        statement: The statement. Defaults of columns are not applied: pass a value for each parameter. It
            must have no parameter that SQLAlchemy expands, such as the list of `in_`.
    """

    def __init__(self, statement: Statement) -> None:
        # Without the option, SQLAlchemy does not keep the row count of an INSERT.
        self._statement = statement.execution_options(preserve_rowcount=True)
        self._compiled: _Compiled | None = None

    def fetch_one(
        self, connection: Connection | MessageConnection, values: Mapping[str, Any]
    ) -> tuple[Any, ...] | None:
        """Run the statement, which returns at most one row, and return the row.

        Args:
            connection: The connection, in a transaction.
            values: The parameters.

        Raises:
            SQLAlchemyError: As `connection.execute` raises it.
        """
        if isinstance(connection, MessageConnection):
            return next(iter(connection.run_one(self._statement, values).rows), None)
        if _needs_sqlalchemy(connection):
            row = connection.execute(self._statement, values).one_or_none()
            return None if row is None else tuple(row)
        return cast("tuple[Any, ...] | None", self._execute(connection, values).fetchone())

    def fetch_usual(
        self,
        connection: Connection | MessageConnection,
        values: Mapping[str, Any],
        usual: tuple[Any, ...],
    ) -> tuple[Any, ...] | None:
        """Return the row as `fetch_one`, or at once the usual one if any other ends the transaction."""
        if isinstance(connection, MessageConnection):
            connection.expect(self._statement, values, [usual])
            return usual
        return self.fetch_one(connection, values)

    def execute(self, connection: Connection | MessageConnection, values: Mapping[str, Any]) -> int:
        """Run the statement and return the number of rows that it has written.

        Args:
            connection: The connection, in a transaction.
            values: The parameters.

        Raises:
            SQLAlchemyError: As `connection.execute` raises it.
        """
        if isinstance(connection, MessageConnection):
            return cast("int", connection.run_one(self._statement, values).row_count)
        if _needs_sqlalchemy(connection):
            return connection.execute(self._statement, values).rowcount
        return cast("int", self._execute(connection, values).rowcount)

    def execute_later(self, connection: Connection | MessageConnection, values: Mapping[str, Any]) -> None:
        """Run the statement now or, where several can be sent together, at the latest with the commit."""
        if isinstance(connection, MessageConnection):
            connection.run_later(self._statement, values)
        else:
            self.execute(connection, values)

    def _execute(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        compiled = self._compiled
        if compiled is None:
            # Two threads that compile at the same time have the same result.
            self._compiled = compiled = _compile(self._statement, connection.dialect)
        parameters = {**compiled.constants, **values}
        for name, convert in compiled.processors:
            parameters[name] = convert(parameters[name])
        cursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.text, parameters)
        except BaseException as error:
            # Raises the error of SQLAlchemy. If the server is gone, it drops the connections of the pool.
            connection._handle_dbapi_exception(error, compiled.text, None, cursor, None)
            raise
        return cursor


def _needs_sqlalchemy(connection: Connection) -> bool:
    return bool(connection.dispatch.before_cursor_execute)


def _compile(statement: Statement, dialect: Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect)
    # Values in the statement itself, whose parameters SQLAlchemy names.
    constants = {name: parameter.value for parameter, name in compiled.bind_names.items() if parameter.unique}
    return _Compiled(str(compiled), constants, tuple(list_processors(compiled, dialect)))


def list_processors(compiled: Any, dialect: Dialect) -> list[tuple[str, Callable[[Any], Any]]]:
    """Return the functions that convert parameters of a compiled statement for the driver, by name."""
    processors = []
    for parameter, name in compiled.bind_names.items():
        kind = parameter.type.dialect_impl(dialect)
        # The text of JSON, not SQLAlchemy's wrapper, for which the driver would look up the same function.
        convert = _json_encoder(kind) if isinstance(kind, JSON) else kind.bind_processor(dialect)
        if convert is not None:
            processors.append((name, convert))
    return processors


def _json_encoder(kind: JSON) -> Callable[[Any], str | None]:
    def encode(value: Any) -> str | None:
        if value is None and kind.none_as_null:
            return None
        return dump_json(value)

    return encode
