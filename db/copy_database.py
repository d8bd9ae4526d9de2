"""Copies an SQLite database to PostgreSQL, all or nothing, and proves that every row arrived as it was.

It follows the tables that the models declare and knows none of them. Whether what the rows refer to outside
of the database is there, the caller says before anything is kept.
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
    """Nothing was copied; the message says to a person why not."""


class CopyFailed(Exception):
    """The target did not take the rows of a table; nothing was kept. The message names table and reason."""


@dataclass
class TableDigest:
    """How many rows a table has and a sum over all of them, in whatever order they come."""

    rows: int = 0
    digest: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one more row."""
        self.rows += 1
        self.digest = (
            self.digest + int.from_bytes(hashlib.sha256(_row_bytes(row)).digest())
        ) % _DIGEST_MODULUS


@dataclass(frozen=True)
class CopyReport:
    """One table in both databases."""

    table: str
    before: TableDigest
    after: TableDigest

    @property
    def is_identical(self) -> bool:
        """Whether both hold the same rows."""
        return self.before == self.after


AcceptCopy = Callable[[Connection, list[CopyReport]], bool]


def copy_database(source_url: str, target_url: str, accept: AcceptCopy) -> bool:
    """Copy every row of one moment from SQLite to an empty PostgreSQL database; whether that was kept.

    `accept` is called with the source, still at that moment, and with what was found in both databases;
    unless it returns True, the target keeps its empty tables. MoveRefused when there is nothing to copy from
    or to, MoveFailed when the target cannot hold a row.
    """
    _require_databases(source_url, target_url)
    source, target = build_engine(source_url, pool_size=1), build_engine(target_url, pool_size=1)
    try:
        with target.connect() as writing:
            bypass_rls(writing)
            _require_empty(writing)
        upgrade(target_url)
        with source.connect() as reading, target.connect() as writing:
            bypass_rls(writing)
            _lock_tables(writing)
            _require_empty(writing)
            tables = [
                table for table in Base.metadata.sorted_tables if not table.info.get(TRIGGER_MAINTAINED)
            ]
            before = {table.name: _copy_table_or_raise(reading, writing, table) for table in tables}
            for table in tables:
                _fill_circular_references(reading, writing, table)
                _reset_sequence(writing, table)
            while compact_counts(writing):
                pass
            found = [
                CopyReport(table.name, before[table.name], _digest_table(writing, table)) for table in tables
            ]
            kept = accept(reading, found) and all(table.is_identical for table in found)
            if kept:
                writing.commit()
            return kept
    finally:
        source.dispose()
        target.dispose()


def _require_databases(source_url: str, target_url: str) -> None:
    source, target = make_url(source_url), make_url(target_url)
    if source.get_backend_name() != "sqlite" or target.get_backend_name() not in ("postgresql", "postgres"):
        raise CopyRejected(
            "A move leads from SQLite to PostgreSQL: name an address that begins postgresql://"
        )
    # Opened for reading first: to connect would make the file.
    try:
        with open(source.database or "", "rb"):
            pass
    except OSError as error:
        raise CopyRejected(f"There is no SQLite database at {source.database}: {error.strerror}") from error
    if not is_current(source_url):
        raise CopyRejected("The SQLite database is not of this release; bring it up to date first")


def _require_empty(target: Connection) -> None:
    for name in inspect(target).get_table_names():
        if name == _VERSION_TABLE:
            continue
        known = Base.metadata.tables.get(name)
        if known is None:
            raise CopyRejected(f"The target is not empty: it has a table {name}")
        if target.scalar(select(literal_column("1")).select_from(known).limit(1)) is not None:
            raise CopyRejected(f"The target is not empty: there are rows in {name}")


def _lock_tables(target: Connection) -> None:
    """Let nobody else write before the end: a server that starts there now must wait."""
    names = ", ".join(target.dialect.identifier_preparer.format_table(t) for t in Base.metadata.sorted_tables)
    target.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))


def _copy_table_or_raise(source: Connection, target: Connection, table: Table) -> TableDigest:
    try:
        return _copy_table(source, target, table)
    except DBAPIError as error:
        raise CopyFailed(f"{table.name}: {error.orig}") from error


def _copy_table(source: Connection, target: Connection, table: Table) -> TableDigest:
    """Copy the rows of a table, without references to tables that come later; what was read."""
    content, later = TableDigest(), dict.fromkeys(_circular_columns(table))
    statement = insert(table).values({column.name: _bind_value(column) for column in table.columns})
    for rows in _read_batches(source, table):
        for row in rows:
            content.add(row)
        target.execute(statement, [_bind_row(table, {**row, **later}) for row in rows])
    return content


def _digest_table(connection: Connection, table: Table) -> TableDigest:
    content = TableDigest()
    for rows in _read_batches(connection, table):
        for row in rows:
            content.add(row)
    return content


def _read_batches(connection: Connection, table: Table) -> Iterator[list[Row]]:
    """The rows of a table in batches; JSON as the text that it is, so that not even a space is lost."""
    columns = [_as_text(connection, column) for column in table.columns]
    result = connection.execute(select(*columns).execution_options(yield_per=BATCH_SIZE))
    for rows in result.mappings().partitions():
        yield [dict(row) for row in rows]


def _as_text(connection: Connection, column: Column[Any]) -> Any:
    if not isinstance(column.type, JSON):
        return column
    shown = cast(column, Text) if connection.dialect.name == "postgresql" else type_coerce(column, Text)
    return shown.label(column.name)


def _bind_value(column: Column[Any]) -> Any:
    if isinstance(column.type, JSON):
        return cast(bindparam(f"to_{column.name}", type_=Text), column.type)
    return bindparam(f"to_{column.name}", type_=column.type)


def _bind_row(table: Table, row: Row) -> Row:
    return {f"to_{name}": value for name, value in row.items()}


def _circular_columns(table: Table) -> list[str]:
    """The columns that refer to the table itself or to one that is copied later."""
    order = {each.name: place for place, each in enumerate(Base.metadata.sorted_tables)}
    return [
        key.parent.name for key in table.foreign_keys if order[key.column.table.name] >= order[table.name]
    ]


def _fill_circular_references(source: Connection, target: Connection, table: Table) -> None:
    """Fill in the references that `_copy` left out; nothing else of the rows changes."""
    for name in _circular_columns(table):
        column = table.columns[name]
        keys = list(table.primary_key.columns)
        untouched = {each.name: each for each in table.columns if each.onupdate is not None}
        statement = (
            update(table)
            .where(*(key == bindparam(f"to_{key.name}", type_=key.type) for key in keys))
            .values({**untouched, name: bindparam(f"to_{name}", type_=column.type)})
        )
        found = source.execute(
            select(*keys, column).where(column.is_not(None)).execution_options(yield_per=BATCH_SIZE)
        )
        for rows in found.mappings().partitions():
            target.execute(statement, [_bind_row(table, dict(row)) for row in rows])


def _reset_sequence(target: Connection, table: Table) -> None:
    """Let a column that numbers rows by itself go on after the last number."""
    column = table.autoincrement_column
    if column is None:
        return
    last = select(func.max(column)).scalar_subquery()
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    target.execute(select(func.setval(sequence, func.coalesce(last, 1), last.is_not(None))))


def _row_bytes(row: Mapping[str, Any]) -> bytes:
    """A row as bytes that are the same for the same values, whichever database they came from."""
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
