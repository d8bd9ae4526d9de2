"""Copy a database and verify that every row is identical: SQLite to PostgreSQL, or either to a snapshot file.

A snapshot is one SQLite file, whatever the database is, so that it can be restored to both. This module
iterates over the tables of the models and knows no particular one. It copies no files that rows refer to; the
caller can check them.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Table,
    Text,
    bindparam,
    cast,
    create_engine,
    delete,
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
from sqlalchemy.exc import DBAPIError, ProgrammingError

import db.models  # noqa: F401 - registers every table
from db.base import TRIGGER_MAINTAINED, WRITTEN_BY_TRIGGERS, Base
from db.change_feed.maintenance import begin_new_feed, suspend_touch_triggers
from db.engine import build_engine
from db.migrations import is_current, upgrade
from db.rls.session_role import SYSTEM, bypass_rls, set_role
from db.row_counts.queries import compact_counts

BATCH_SIZE = 500
_VERSION_TABLE = "alembic_version"
_DIGEST_MODULUS = 1 << 256
_OWNER_HINT = "Set MIGRATION_DATABASE_URL to the login that owns the tables"

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


def save_snapshot(source_url: str, path: Path) -> list[CopyReport]:
    """Save all rows, as they are at one moment, in a new SQLite file. Requests go on meanwhile.

    Args:
        source_url: The URL of a database at the newest revision. On PostgreSQL its login owns the tables.
        path: The file, which does not exist.

    Returns:
        One report per table: the database within the snapshot, and the file as it was read back.

    Raises:
        CopyRejected: The database has an older schema, or row-level security hides rows from its login.
        CopyFailed: The file rejected a row.
    """
    _require_current(source_url)
    source = build_engine(source_url, pool_size=1)
    try:
        if source.dialect.name == "sqlite":
            with source.connect() as connection:
                before = _save_sqlite(connection, path)
        else:
            snapshot = source.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with snapshot.connect() as connection:
                before = _save_postgresql(connection, path)
    finally:
        source.dispose()
    # A file in WAL mode cannot be read from a read-only medium.
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode=DELETE")
    with open_snapshot(path) as file_connection:
        after = digest_tables(file_connection)
    return [CopyReport(name, digest, after[name]) for name, digest in before.items()]


@contextmanager
def open_snapshot(path: Path) -> Iterator[Connection]:
    """Open the file of a snapshot read-only. Nothing is written beside it."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True),
        hide_parameters=True,
    )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def digest_tables(connection: Connection) -> dict[str, TableDigest]:
    """Return the digest of each table, by its name."""
    return {table.name: _digest_table(connection, table) for table in _copied_tables()}


def require_empty_database(url: str) -> None:
    """Check that a database has no rows and no tables of another application.

    Raises:
        CopyRejected: The database is not empty. An SQLite file must not exist.
    """
    path = make_url(url).database
    if make_url(url).get_backend_name() == "sqlite":
        # With the files beside it: SQLite could apply the log of an earlier database to the new file.
        for name in (path, f"{path}-wal", f"{path}-shm", f"{path}-journal"):
            if path and Path(str(name)).exists():
                raise CopyRejected(f"The target is not empty: {name} exists")
        return
    engine = build_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            bypass_rls(connection)
            _require_empty(connection)
    finally:
        engine.dispose()


def _require_current(url: str) -> None:
    database = make_url(url).database or ""
    # Connecting would create the file.
    is_missing = make_url(url).get_backend_name() == "sqlite" and not Path(database).is_file()
    try:
        if not is_missing and is_current(url):
            return
    except ProgrammingError as error:
        raise CopyRejected(f"{error.orig}. {_OWNER_HINT}") from error
    raise CopyRejected(
        f"The database {database} is missing or has an older schema: run `python -m handlers --prepare-only`"
    )


def _save_sqlite(source: Connection, path: Path) -> dict[str, TableDigest]:
    """Copy the pages of an SQLite database within one read transaction."""
    # The first statement begins the read transaction, which the copy of the pages continues.
    source.execute(text("SELECT count(*) FROM sqlite_master"))
    driver: Any = source.connection.driver_connection
    with closing(sqlite3.connect(path)) as target:
        driver.backup(target)
    return digest_tables(source)


def _save_postgresql(source: Connection, path: Path) -> dict[str, TableDigest]:
    """Copy the rows of a PostgreSQL database, within its snapshot, to a file with the same schema."""
    _require_visible_rows(source)
    upgrade(f"sqlite:///{path}")
    target = build_engine(f"sqlite:///{path}", pool_size=1).execution_options(write=True)
    try:
        with target.begin() as connection:
            with suspend_touch_triggers(connection):
                digests = _copy_rows(source, connection)
            begin_new_feed(connection)
            return digests
    finally:
        target.dispose()


def _require_visible_rows(source: Connection) -> None:
    """Check that the login sees as many rows of each table as the system role, then continue as the login.

    Two policies make all rows visible: one to the system role, one to the owner of the tables. A login to
    which neither applies reads no rows and gets no error.
    """
    set_role(source, SYSTEM)
    expected = _count_rows(source)
    bypass_rls(source)
    visible = _count_rows(source)
    hidden = [
        f"{name} ({visible[name]} of {expected[name]} rows)"
        for name in expected
        if visible[name] != expected[name]
    ]
    if hidden:
        raise CopyRejected(
            f"Row-level security hides rows from this login: {', '.join(hidden)}. {_OWNER_HINT}"
        )


def _count_rows(connection: Connection) -> dict[str, int]:
    return {
        table.name: connection.scalar(select(func.count()).select_from(table)) or 0
        for table in _copied_tables()
    }


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
            before = _copy_rows(source_connection, target_connection)
            for table in _copied_tables():
                _reset_sequence(target_connection, table)
            # The count triggers appended one row per INSERT statement.
            while compact_counts(target_connection):
                pass
            begin_new_feed(target_connection)
            after = digest_tables(target_connection)
            reports = [CopyReport(name, digest, after[name]) for name, digest in before.items()]
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


def _copied_tables() -> list[Table]:
    """Return the tables in an order in which rows refer to earlier tables, but for circular references.

    Tables that triggers write come last.
    """
    tables = [table for table in Base.metadata.sorted_tables if not table.info.get(TRIGGER_MAINTAINED)]
    return sorted(tables, key=lambda table: table.info.get(WRITTEN_BY_TRIGGERS, False))


def _copy_rows(source: Connection, target: Connection) -> dict[str, TableDigest]:
    """Copy the rows of all tables; return the digests of what was read, by table."""
    tables = _copied_tables()
    digests = {table.name: _copy_table_or_raise(source, target, table) for table in tables}
    for table in tables:
        _fill_circular_references(source, target, table)
    return digests


def _copy_table_or_raise(source: Connection, target: Connection, table: Table) -> TableDigest:
    try:
        return _copy_table(source, target, table)
    except DBAPIError as error:
        raise CopyFailed(f"{table.name}: {error.orig}") from error


def _copy_table(source: Connection, target: Connection, table: Table) -> TableDigest:
    """Copy the rows of a table without references to tables that are copied later; return their digest."""
    digest, nulls = TableDigest(), dict.fromkeys(_circular_columns(table))
    if table.info.get(WRITTEN_BY_TRIGGERS):
        # The rows that the triggers of the target have just written.
        target.execute(delete(table))
    statement = insert(table).values({column.name: _bind_value(target, column) for column in table.columns})
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


def _bind_value(connection: Connection, column: Column[Any]) -> Any:
    if isinstance(column.type, JSON):
        value = bindparam(f"to_{column.name}", type_=Text)
        # SQLite stores the text itself; CAST(... AS JSON) would make a number of it.
        return cast(value, column.type) if connection.dialect.name == "postgresql" else value
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
