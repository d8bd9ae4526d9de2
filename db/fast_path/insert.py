"""Insert one new row, or many, with statements that bypass the ORM's unit of work.

The unit of work sorts the changes of many rows by their dependencies. For a single row this takes longer than
everything else that the session does.

Benchmark: `make bench-profile`, column "create", and the operation `create` of `make bench`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Table, bindparam, insert, inspect
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from db.audit import record_flush
from db.base import Base, Identified
from db.event_loop_session import EventLoopSession
from db.fast_path.driver_statement import DriverStatement
from db.session import current_session, current_write_connection, is_in_savepoint

ROWS_PER_STATEMENT = 500
"""Rows of `insert_rows` per statement: PostgreSQL accepts 65,535 parameters in one."""


def insert_row(row: Identified, returning: ColumnElement[bool] | None = None) -> bool | None:
    """Insert a new row now. Afterwards the session and the audit log track it like a flushed row.

    A row with related rows in its relationships is flushed by the session instead, and so is a row inside of
    `db.session.savepoint`: if that is rolled back, the session would keep the row otherwise. Do not call this
    inside another savepoint that may be rolled back afterwards.

    Args:
        row: The new row.
        returning: A condition about the inserted row, the same object for all rows of a model.

    Returns:
        Whether the condition holds, or None without a condition and if the session has flushed the row.

    Raises:
        IntegrityError: A constraint is violated, as in a flush.
        RuntimeError: The transaction was opened for reading.
    """
    session, attributes, plan = current_session(), row.__dict__, _build_plan(type(row))
    is_message = isinstance(session, EventLoopSession)
    if is_in_savepoint() or any(attributes.get(name) for name in plan.relationships):
        session.add(row)
        session.flush()
        return None
    # Rows that this one refers to may still be pending in the session.
    session.flush()
    values = {
        **plan.null_columns,
        **{
            name: attributes[attribute] for name, attribute in plan.columns.items() if attribute in attributes
        },
    }
    for name, build_default in plan.defaults.items():
        # The unit of work applies the default to None as well, unless the type has a value for None.
        if name not in values or (values[name] is None and name not in plan.null_values):
            values[name] = build_default()
    connection, statement = current_write_connection(), _build_statement(type(row), tuple(values), returning)
    inserted = None if returning is None else statement.fetch_one(connection, values)
    if returning is None:
        statement.execute_later(connection, values)
    for name, value in values.items():
        # Defaults such as the id are new; the object must have them too.
        attribute = plan.columns[name]
        if attribute not in attributes or (attributes[attribute] is None and value is not None):
            set_committed_value(row, attribute, value)
    # An object with a primary key that is detached and added counts as loaded, so no flush inserts it again.
    make_transient_to_detached(row)
    if not is_message:
        session.add(row)
    record_flush(row, is_new=True)
    return None if inserted is None else bool(inserted[0])


def insert_rows(model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many new rows with one statement per `ROWS_PER_STATEMENT`, without loading them.

    Triggers that run once per statement, such as those of row counts, then run once for all of these rows.

    Args:
        model: The model.
        rows: The values by the names of the columns. All rows have the same columns.
    """
    session = current_session()
    # Rows that these refer to may still be pending in the session.
    session.flush()
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        batch = list(rows[start : start + ROWS_PER_STATEMENT])
        current_write_connection().execute(insert(cast("Table", model.__table__)).values(batch))


class _InsertPlan(NamedTuple):
    """What is known about the columns of a model."""

    columns: dict[str, str]
    """The attribute of each column."""
    null_columns: dict[str, None]
    """Nullable columns. Every statement names all of them, so that few forms of it are cached."""
    null_values: frozenset[str]
    """Columns whose types have a value for None."""
    defaults: dict[str, Callable[[], Any]]
    """The functions that return the default of a column."""
    relationships: tuple[str, ...]
    """The relationships that may hold related rows."""


@cache
def _build_plan(model: type[Identified]) -> _InsertPlan:
    columns = list(cast("Table", model.__table__).c)
    # These types, such as JSON, would store None as a value (`null`), not as SQL NULL.
    null_values = frozenset(column.key for column in columns if column.type.should_evaluate_none)
    return _InsertPlan(
        columns={column.key: inspect(model).get_property_by_column(column).key for column in columns},
        null_columns=dict.fromkeys(
            column.key for column in columns if column.default is None and column.key not in null_values
        ),
        null_values=null_values,
        defaults={
            column.key: _get_default(column.default) for column in columns if column.default is not None
        },
        relationships=tuple(inspect(model).relationships.keys()),
    )


def _get_default(default: Any) -> Callable[[], Any]:
    # SQLAlchemy wraps each function so that it takes the context of an execution.
    return partial(default.arg, None) if default.is_callable else lambda: default.arg


@cache
def _build_statement(
    model: type[Identified], names: tuple[str, ...], returning: ColumnElement[bool] | None
) -> DriverStatement:
    statement = insert(cast("Table", model.__table__)).values({name: bindparam(name) for name in names})
    return DriverStatement(statement if returning is None else statement.returning(returning))
