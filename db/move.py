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
from db.actors import see_all
from db.base import DERIVED, Base
from db.engines import make_engine
from db.migrations import is_current, upgrade
from db.queries.counts import add_up

BATCH = 500
_VERSION_TABLE = "alembic_version"
_SUM = 1 << 256

Row = dict[str, Any]


class MoveRefused(Exception):
    """Nothing was copied; the message says to a person why not."""


class MoveFailed(Exception):
    """The target did not take the rows of a table; nothing was kept. The message names table and reason."""


@dataclass
class Content:
    """How many rows a table has and a sum over all of them, in whatever order they come."""

    rows: int = 0
    digest: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one more row."""
        self.rows += 1
        self.digest = (self.digest + int.from_bytes(hashlib.sha256(_plain(row)).digest())) % _SUM


@dataclass(frozen=True)
class Moved:
    """One table in both databases."""

    table: str
    before: Content
    after: Content

    @property
    def is_the_same(self) -> bool:
        """Whether both hold the same rows."""
        return self.before == self.after


Accept = Callable[[Connection, list[Moved]], bool]


def move(source_url: str, target_url: str, accept: Accept) -> bool:
    """Copy every row of one moment from SQLite to an empty PostgreSQL database; whether that was kept.

    `accept` is called with the source, still at that moment, and with what was found in both databases;
    unless it returns True, the target keeps its empty tables. MoveRefused when there is nothing to copy from
    or to, MoveFailed when the target cannot hold a row.
    """
    _require_databases(source_url, target_url)
    source, target = make_engine(source_url, pool_size=1), make_engine(target_url, pool_size=1)
    try:
        with target.connect() as writing:
            see_all(writing)
            _require_empty(writing)
        upgrade(target_url)
        with source.connect() as reading, target.connect() as writing:
            see_all(writing)
            _lock(writing)
            _require_empty(writing)
            tables = [table for table in Base.metadata.sorted_tables if not table.info.get(DERIVED)]
            before = {table.name: _copied(reading, writing, table) for table in tables}
            for table in tables:
                _close_circles(reading, writing, table)
                _go_on_counting(writing, table)
            while add_up(writing):
                pass
            found = [Moved(table.name, before[table.name], _content(writing, table)) for table in tables]
            kept = accept(reading, found) and all(table.is_the_same for table in found)
            if kept:
                writing.commit()
            return kept
    finally:
        source.dispose()
        target.dispose()


def _require_databases(source_url: str, target_url: str) -> None:
    source, target = make_url(source_url), make_url(target_url)
    if source.get_backend_name() != "sqlite" or target.get_backend_name() not in ("postgresql", "postgres"):
        raise MoveRefused("A move leads from SQLite to PostgreSQL: name an address that begins postgresql://")
    # Opened for reading first: to connect would make the file.
    try:
        with open(source.database or "", "rb"):
            pass
    except OSError as error:
        raise MoveRefused(f"There is no SQLite database at {source.database}: {error.strerror}") from error
    if not is_current(source_url):
        raise MoveRefused("The SQLite database is not of this release; bring it up to date first")


def _require_empty(target: Connection) -> None:
    for name in inspect(target).get_table_names():
        if name == _VERSION_TABLE:
            continue
        known = Base.metadata.tables.get(name)
        if known is None:
            raise MoveRefused(f"The target is not empty: it has a table {name}")
        if target.scalar(select(literal_column("1")).select_from(known).limit(1)) is not None:
            raise MoveRefused(f"The target is not empty: there are rows in {name}")


def _lock(target: Connection) -> None:
    """Let nobody else write before the end: a server that starts there now must wait."""
    names = ", ".join(target.dialect.identifier_preparer.format_table(t) for t in Base.metadata.sorted_tables)
    target.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))


def _copied(source: Connection, target: Connection, table: Table) -> Content:
    try:
        return _copy(source, target, table)
    except DBAPIError as error:
        raise MoveFailed(f"{table.name}: {error.orig}") from error


def _copy(source: Connection, target: Connection, table: Table) -> Content:
    """Copy the rows of a table, without references to tables that come later; what was read."""
    content, later = Content(), dict.fromkeys(_circular(table))
    statement = insert(table).values({column.name: _given(column) for column in table.columns})
    for rows in _read(source, table):
        for row in rows:
            content.add(row)
        target.execute(statement, [_named(table, {**row, **later}) for row in rows])
    return content


def _content(connection: Connection, table: Table) -> Content:
    content = Content()
    for rows in _read(connection, table):
        for row in rows:
            content.add(row)
    return content


def _read(connection: Connection, table: Table) -> Iterator[list[Row]]:
    """The rows of a table in batches; JSON as the text that it is, so that not even a space is lost."""
    columns = [_as_text(connection, column) for column in table.columns]
    result = connection.execute(select(*columns).execution_options(yield_per=BATCH))
    for rows in result.mappings().partitions():
        yield [dict(row) for row in rows]


def _as_text(connection: Connection, column: Column[Any]) -> Any:
    if not isinstance(column.type, JSON):
        return column
    shown = cast(column, Text) if connection.dialect.name == "postgresql" else type_coerce(column, Text)
    return shown.label(column.name)


def _given(column: Column[Any]) -> Any:
    if isinstance(column.type, JSON):
        return cast(bindparam(f"to_{column.name}", type_=Text), column.type)
    return bindparam(f"to_{column.name}", type_=column.type)


def _named(table: Table, row: Row) -> Row:
    return {f"to_{name}": value for name, value in row.items()}


def _circular(table: Table) -> list[str]:
    """The columns that refer to the table itself or to one that is copied later."""
    order = {each.name: place for place, each in enumerate(Base.metadata.sorted_tables)}
    return [
        key.parent.name for key in table.foreign_keys if order[key.column.table.name] >= order[table.name]
    ]


def _close_circles(source: Connection, target: Connection, table: Table) -> None:
    """Fill in the references that `_copy` left out; nothing else of the rows changes."""
    for name in _circular(table):
        column = table.columns[name]
        keys = list(table.primary_key.columns)
        untouched = {each.name: each for each in table.columns if each.onupdate is not None}
        statement = (
            update(table)
            .where(*(key == bindparam(f"to_{key.name}", type_=key.type) for key in keys))
            .values({**untouched, name: bindparam(f"to_{name}", type_=column.type)})
        )
        found = source.execute(
            select(*keys, column).where(column.is_not(None)).execution_options(yield_per=BATCH)
        )
        for rows in found.mappings().partitions():
            target.execute(statement, [_named(table, dict(row)) for row in rows])


def _go_on_counting(target: Connection, table: Table) -> None:
    """Let a column that numbers rows by itself go on after the last number."""
    column = table.autoincrement_column
    if column is None:
        return
    last = select(func.max(column)).scalar_subquery()
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    target.execute(select(func.setval(sequence, func.coalesce(last, 1), last.is_not(None))))


def _plain(row: Mapping[str, Any]) -> bytes:
    """A row as bytes that are the same for the same values, whichever database they came from."""
    return b"".join(_with_length(part) for item in row.items() for part in (item[0], _written(item[1])))


def _written(value: Any) -> str | bytes:
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


def _with_length(part: str | bytes) -> bytes:
    encoded = part.encode() if isinstance(part, str) else part
    return b"%d:%b" % (len(encoded), encoded)
