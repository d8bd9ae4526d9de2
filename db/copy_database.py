"""Copy an SQLite database to PostgreSQL, all or nothing, and verify that every row is identical.

This module iterates over the tables of the models and knows no particular one. It copies no files that rows
refer to; the caller can check them before the copy is committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Table,
    Text,
    bindparam,
    cast,
    func,
    insert,
    inspect,
    literal_column,
    make_url,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.exc import DBAPIError

import db.models  # noqa: F401 - registers every table
from db.base import TRIGGER_MAINTAINED, Base
from db.engine import build_engine
from db.migrations import is_current, upgrade
from db.rls.session_role import bypass_rls
from db.row_counts.queries import compact_counts

BATCH_SIZE = 500
_VERSION_TABLE = "alembic_version"
_DIGEST_MODULUS = 1 << 256

Row = dict[str, Any]


class CopyRejected(Exception):
    """Nothing was copied; the message explains why."""


class CopyFailed(Exception):
    """PostgreSQL rejected the rows of a table and the copy was rolled back. The message names both."""


@dataclass
class TableDigest:
    """The number of rows of a table and a digest of them that does not depend on their order."""

    rows: int = 0
    digest: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row."""
        self.rows += 1
        # A sum of hashes needs no sorting: the two databases sort text and UUIDs differently.
        self.digest = (
            self.digest + int.from_bytes(hashlib.sha256(_row_bytes(row)).digest())
        ) % _DIGEST_MODULUS


@dataclass(frozen=True)
class CopyReport:
    """One table, as read from both databases."""

    table: str
    before: TableDigest
    after: TableDigest

    @property
    def is_identical(self) -> bool:
        """Return whether both databases hold the same rows."""
        return self.before == self.after


AcceptCopy = Callable[[Connection, list[CopyReport]], bool]


def copy_database(source_url: str, target_url: str, accept: AcceptCopy) -> bool:
    """Copy a snapshot of an SQLite database to an empty PostgreSQL database.

    Args:
        source_url: The URL of the SQLite database, which must be at the newest revision.
        target_url: The URL of the PostgreSQL database, with a login that owns its tables.
        accept: Called with a connection to the source, in the same snapshot, and with one report per table.
            Unless it returns True, the copy is rolled back and the target keeps its empty tables.

    Returns:
        Whether the copy was accepted, identical and committed.

    Raises:
        CopyRejected: A database is missing, of another kind or revision, or the target is not empty.
        CopyFailed: PostgreSQL rejected a row.
    """
    _require_databases(source_url, target_url)
    source, target = build_engine(source_url, pool_size=1), build_engine(target_url, pool_size=1)
    try:
        # Checked before the upgrade, which would otherwise change a database that is in use.
        with target.connect() as target_connection:
            bypass_rls(target_connection)
            _require_empty(target_connection)
        upgrade(target_url)
        with source.connect() as source_connection, target.connect() as target_connection:
            bypass_rls(target_connection)
            _lock_tables(target_connection)
            # Checked again under the lock: a server may have started in between.
            _require_empty(target_connection)
            tables = [
                table for table in Base.metadata.sorted_tables if not table.info.get(TRIGGER_MAINTAINED)
            ]
            before = {
                table.name: _copy_table_or_raise(source_connection, target_connection, table)
                for table in tables
            }
            for table in tables:
                _fill_circular_references(source_connection, target_connection, table)
                _reset_sequence(target_connection, table)
            # The count triggers appended one row per INSERT statement.
            while compact_counts(target_connection):
                pass
            reports = [
                CopyReport(table.name, before[table.name], _digest_table(target_connection, table))
                for table in tables
            ]
            is_accepted = accept(source_connection, reports) and all(
                report.is_identical for report in reports
            )
            if is_accepted:
                target_connection.commit()
            return is_accepted
    finally:
        source.dispose()
        target.dispose()


def _require_databases(source_url: str, target_url: str) -> None:
    source, target = make_url(source_url), make_url(target_url)
    if source.get_backend_name() != "sqlite" or target.get_backend_name() not in ("postgresql", "postgres"):
        raise CopyRejected(
            "Data is copied from SQLite to PostgreSQL only: pass a target URL that starts with postgresql://"
        )
    # The file is opened for reading first because connecting would create it.
    try:
        with open(source.database or "", "rb"):
            pass
    except OSError as error:
        raise CopyRejected(f"There is no SQLite database at {source.database}: {error.strerror}") from error
    if not is_current(source_url):
        raise CopyRejected("The SQLite database has an older schema; bring it up to date first")


def _require_empty(target: Connection) -> None:
    for name in inspect(target).get_table_names():
        if name == _VERSION_TABLE:
            continue
        table = Base.metadata.tables.get(name)
        if table is None:
            raise CopyRejected(f"The target is not empty: it has a table {name}")
        if target.scalar(select(literal_column("1")).select_from(table).limit(1)) is not None:
            raise CopyRejected(f"The target is not empty: there are rows in {name}")


def _lock_tables(target: Connection) -> None:
    """Lock all tables against writes, so that a server that starts now waits for the end of the copy."""
    # EXCLUSIVE blocks writes and row locks, but not reads.
    names = ", ".join(target.dialect.identifier_preparer.format_table(t) for t in Base.metadata.sorted_tables)
    target.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))


def _copy_table_or_raise(source: Connection, target: Connection, table: Table) -> TableDigest:
    try:
        return _copy_table(source, target, table)
    except DBAPIError as error:
        raise CopyFailed(f"{table.name}: {error.orig}") from error


def _copy_table(source: Connection, target: Connection, table: Table) -> TableDigest:
    """Copy the rows of a table without references to tables that are copied later; return their digest."""
    digest, nulls = TableDigest(), dict.fromkeys(_circular_columns(table))
    statement = insert(table).values({column.name: _bind_value(column) for column in table.columns})
    for rows in _read_batches(source, table):
        for row in rows:
            digest.add(row)
        target.execute(statement, [_bind_row({**row, **nulls}) for row in rows])
    return digest


def _digest_table(connection: Connection, table: Table) -> TableDigest:
    digest = TableDigest()
    for rows in _read_batches(connection, table):
        for row in rows:
            digest.add(row)
    return digest


def _read_batches(connection: Connection, table: Table) -> Iterator[list[Row]]:
    """Yield the rows of a table in batches, with JSON as text, so that even its whitespace is compared."""
    columns = [_as_text(connection, column) for column in table.columns]
    result = connection.execute(select(*columns).execution_options(yield_per=BATCH_SIZE))
    for rows in result.mappings().partitions():
        yield [dict(row) for row in rows]


def _as_text(connection: Connection, column: Column[Any]) -> Any:
    if not isinstance(column.type, JSON):
        return column
    # SQLite stores JSON as text already, and a CAST could change it.
    as_text = cast(column, Text) if connection.dialect.name == "postgresql" else type_coerce(column, Text)
    return as_text.label(column.name)


def _bind_value(column: Column[Any]) -> Any:
    if isinstance(column.type, JSON):
        return cast(bindparam(f"to_{column.name}", type_=Text), column.type)
    return bindparam(f"to_{column.name}", type_=column.type)


def _bind_row(row: Row) -> Row:
    # The prefix keeps the parameters apart from the names that SQLAlchemy gives to those of SET clauses.
    return {f"to_{name}": value for name, value in row.items()}


def _circular_columns(table: Table) -> list[str]:
    """Return the columns that refer to the table itself or to a table that is copied later."""
    order = {other.name: position for position, other in enumerate(Base.metadata.sorted_tables)}
    return [
        key.parent.name for key in table.foreign_keys if order[key.column.table.name] >= order[table.name]
    ]


def _fill_circular_references(source: Connection, target: Connection, table: Table) -> None:
    """Set the references that `_copy_table` left null; nothing else in the rows changes."""
    for name in _circular_columns(table):
        column = table.columns[name]
        keys = list(table.primary_key.columns)
        # Assigning a column to itself keeps `onupdate` from changing it (`updated_at`).
        unchanged = {other.name: other for other in table.columns if other.onupdate is not None}
        statement = (
            update(table)
            .where(*(key == bindparam(f"to_{key.name}", type_=key.type) for key in keys))
            .values({**unchanged, name: bindparam(f"to_{name}", type_=column.type)})
        )
        references = source.execute(
            select(*keys, column).where(column.is_not(None)).execution_options(yield_per=BATCH_SIZE)
        )
        for rows in references.mappings().partitions():
            target.execute(statement, [_bind_row(dict(row)) for row in rows])


def _reset_sequence(target: Connection, table: Table) -> None:
    """Set the sequence of an autoincrement column to its highest value, so that inserts continue after it."""
    column = table.autoincrement_column
    if column is None:
        return
    last = select(func.max(column)).scalar_subquery()
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    target.execute(select(func.setval(sequence, func.coalesce(last, 1), last.is_not(None))))


def _row_bytes(row: Mapping[str, Any]) -> bytes:
    """Return a row as bytes that are equal for equal values of both databases."""
    return b"".join(
        _length_prefixed(part) for item in row.items() for part in (item[0], _canonical_value(item[1]))
    )


def _canonical_value(value: Any) -> str | bytes:
    match value:
        case None:
            return "none"
        case bytes() | memoryview():
            return bytes(value)
        case datetime():
            return f"datetime {value.isoformat(timespec='microseconds')}"
        case Decimal():
            return f"decimal {value.normalize():f}"
        case _:
            return f"{type(value).__name__} {value}"


def _length_prefixed(part: str | bytes) -> bytes:
    encoded = part.encode() if isinstance(part, str) else part
    return b"%d:%b" % (len(encoded), encoded)
