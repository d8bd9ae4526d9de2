"""Read all rows of a database at one moment, and fill an empty database with rows; both verify every row.

Rows are lines of COPY in text format, which all versions of PostgreSQL and all platforms read. Tables and
columns come from the catalog, not from models, so that a database of an earlier revision can be filled. This
module copies no files that rows refer to; the caller can check them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from db.engine import build_engine
from db.migrations import is_current, upgrade
from db.rls.session_role import SYSTEM, bypass_rls, set_role

CHUNK_BYTES = 1 << 16
"""How many bytes of rows are sent at a time."""

NOT_COPIED = ("alembic_version", "changes")
"""Tables that are not copied. A new database begins a new change feed, for other transaction ids."""
_DIGEST_MODULUS = 1 << 256
_OWNER_HINT = "Set MIGRATION_DATABASE_URL to the login that owns the tables"

# The text of a value depends on them, and so do the digests.
_FORMATS = """
SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL timezone = 'UTC'; SET LOCAL intervalstyle = 'postgres';
SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'
"""
_COLUMNS = text("""
SELECT relname AS table, attname AS column, format_type(atttypid, NULL) AS type
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p') AND NOT relispartition
    AND relname <> ALL (:others)
    AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY relname, attnum
""").bindparams(others=list(NOT_COPIED))
_FOREIGN_KEYS = text("""
SELECT conrelid::regclass AS table, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE connamespace = to_regnamespace('public') AND contype = 'f' ORDER BY oid
""")
_PROTECTED = text("""
SELECT oid::regclass FROM pg_class
WHERE relnamespace = to_regnamespace('public') AND relforcerowsecurity AND NOT relispartition
""")
_SEQUENCES = text("""
SELECT pg_class.oid::regclass AS sequence, quote_ident(attname) AS column, refobjid::regclass AS table
FROM pg_class
JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype IN ('a', 'i')
JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
WHERE relnamespace = to_regnamespace('public') AND relkind = 'S'
""")

Tables = dict[str, dict[str, str]]
"""The types of columns, by table and column."""


class CopyRejected(Exception):
    """Nothing was copied; the message explains why."""


class CopyFailed(Exception):
    """A table was not copied, and the target is as before. The message names the table and the reason."""


@dataclass
class TableDigest:
    """The number of rows of a table and a digest of them that does not depend on their order."""

    rows: int = 0
    digest: int = 0

    def add(self, line: bytes) -> None:
        """Add one row."""
        self.rows += 1
        # A sum of hashes needs no sorting.
        self.digest = (self.digest + int.from_bytes(hashlib.sha256(line).digest())) % _DIGEST_MODULUS

    def __str__(self) -> str:
        """Return the digest as 64 hexadecimal digits."""
        return f"{self.digest:064x}"


class RowSource(Protocol):
    """Rows to fill a database with."""

    revision: str
    """The revision of their schema."""

    def list_columns(self) -> Mapping[str, list[str]]:
        """Return the columns of each table."""

    def read_lines(self, table: str, tables: Tables) -> Iterable[bytes]:
        """Yield the rows of a table as lines of COPY, for a target with these tables."""


Digests = dict[str, TableDigest]
AcceptCopy = Callable[[Connection, Digests, Digests], bool]


@contextmanager
def open_snapshot(url: str) -> Iterator[Connection]:
    """Yield a connection whose statements all see the rows of one moment. Requests go on meanwhile.

    Args:
        url: The URL of a database at the newest revision, with the login that owns the tables.

    Raises:
        CopyRejected: The database has an older schema, or row-level security hides rows from its login.
    """
    _require_current(url)
    engine = build_engine(url, pool_size=1)
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    try:
        with snapshot.connect() as connection:
            _require_visible_rows(connection)
            yield connection
    finally:
        engine.dispose()


def list_tables(connection: Connection) -> Tables:
    """Return the columns of all tables whose rows are copied."""
    tables: Tables = {}
    for table, column, kind in connection.execute(_COLUMNS):
        tables.setdefault(table, {})[column] = kind
    return tables


def read_lines(connection: Connection, table: str, columns: Iterable[str]) -> Iterator[bytes]:
    """Yield the rows of a table as lines of COPY in text format."""
    connection.exec_driver_sql(_FORMATS)
    # A query, because COPY reads no partitioned table.
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (ENCODING 'UTF8')").format(
        _list_names(columns), sql.Identifier("public", table)
    )
    with _cursor(connection) as cursor, cursor.copy(statement) as copy:
        # PostgreSQL sends each row in a message of its own.
        yield from map(bytes, copy)


def digest_lines(lines: Iterable[bytes]) -> TableDigest:
    """Return the digest of rows."""
    digest = TableDigest()
    for line in lines:
        digest.add(line)
    return digest


def digest_tables(connection: Connection, columns: Mapping[str, Iterable[str]]) -> Digests:
    """Return the digest of each table, by its name."""
    return {table: digest_lines(read_lines(connection, table, names)) for table, names in columns.items()}


def require_empty_database(url: str, revision: str) -> None:
    """Check that a database has no rows, no tables of another application, and no newer schema.

    Raises:
        CopyRejected: The database is not empty, or has a newer schema than `revision`.
    """
    with connect_to_all_rows(url) as connection:
        _require_empty(connection, revision)


def fill_database(url: str, source: RowSource, accept: AcceptCopy, mark: str = "") -> bool:
    """Fill an empty database with rows, in one transaction. Its schema is then that of the rows.

    Args:
        url: The URL of the database, with a login that owns its tables.
        source: The rows.
        accept: Called within the transaction, with the digests of the rows and of the filled tables. Unless
            it returns True, the transaction is rolled back and the database keeps its empty tables.
        mark: A text that `has_mark` finds in the database from then on.

    Returns:
        Whether the rows were accepted, identical and committed.

    Raises:
        CopyRejected: The database is not empty, or its schema has other tables or columns than the rows.
        CopyFailed: PostgreSQL rejected a row.
        RolesMissing: As `db.migrations.upgrade`.
    """
    # Checked before the upgrade, which would otherwise change a database that is in use.
    require_empty_database(url, source.revision)
    upgrade(url, source.revision)
    with connect_to_all_rows(url) as connection:
        tables, columns = list_tables(connection), source.list_columns()
        _require_columns(tables, columns)
        # A server that starts now waits for the end of the copy.
        _execute(connection, "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", tables)
        # Checked again under the lock: a server may have started in between.
        _require_empty(connection, source.revision)
        with _suspend_constraints(connection, tables):
            before = {table: _fill_table(connection, table, source, tables) for table in columns}
        _reset_sequences(connection)
        # Without statistics, the first statements of the server would be planned for empty tables.
        _execute(connection, "ANALYZE {}", tables)
        after = digest_tables(connection, columns)
        # compared: no secrets, but the digests of tables.
        is_accepted = accept(connection, before, after) and before == after
        if is_accepted:
            _write_mark(connection, mark)
            connection.commit()
        return is_accepted


def has_mark(url: str, mark: str) -> bool:
    """Return whether `fill_database` has filled a database with this mark."""
    with connect_to_all_rows(url) as connection:
        found = text("SELECT obj_description(to_regclass('public.alembic_version'), 'pg_class') = :mark")
        return bool(connection.scalar(found, {"mark": mark}))


def remove_mark(url: str) -> None:
    """Remove the mark of `fill_database`."""
    with connect_to_all_rows(url) as connection:
        _write_mark(connection, "")
        connection.commit()


@contextmanager
def connect_to_all_rows(url: str) -> Iterator[Connection]:
    """Yield a connection that sees all rows. What it writes is rolled back unless it is committed."""
    engine = build_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            bypass_rls(connection)
            yield connection
    finally:
        engine.dispose()


def _write_mark(connection: Connection, mark: str) -> None:
    # A comment is committed with the rows, and is no part of the schema.
    statement = sql.SQL("COMMENT ON TABLE public.alembic_version IS {}").format(mark or None)
    _cursor(connection).execute(statement)


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    return psycopg.Cursor(cast("psycopg.Connection[Any]", connection.connection.driver_connection))


def _list_names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _require_current(url: str) -> None:
    try:
        if is_current(url):
            return
    except ProgrammingError as error:
        raise CopyRejected(f"{error.orig}. {_OWNER_HINT}") from error
    raise CopyRejected("The database has no or an older schema: run `python -m handlers --prepare-only`")


def _require_visible_rows(connection: Connection) -> None:
    """Check that the login sees as many rows of each table as the system role, then continue as the login.

    Two policies make all rows visible: one to the system role, one to the owner of the tables. A login to
    which neither applies reads no rows and gets no error.
    """
    tables = list_tables(connection)
    set_role(connection, SYSTEM)
    expected = _count_rows(connection, tables)
    bypass_rls(connection)
    visible = _count_rows(connection, tables)
    hidden = [
        f"{name} ({visible[name]} of {expected[name]} rows)"
        for name in expected
        if visible[name] != expected[name]
    ]
    if hidden:
        raise CopyRejected(
            f"Row-level security hides rows from this login: {', '.join(hidden)}. {_OWNER_HINT}"
        )


def _count_rows(connection: Connection, tables: Iterable[str]) -> dict[str, int]:
    counted = {table: _execute(connection, "SELECT count(*) FROM {}", [table]) for table in tables}
    return {table: cast("tuple[int]", cursor.fetchone())[0] for table, cursor in counted.items()}


def _require_empty(connection: Connection, revision: str) -> None:
    tables = list_tables(connection)
    if connection.scalar(text("SELECT to_regclass('public.alembic_version')")) is None:
        for table in tables:
            raise CopyRejected(f"The target is not empty: it has a table {table}")
        return
    for table in tables:
        if _execute(connection, "SELECT 1 FROM {} LIMIT 1", [table]).fetchone() is not None:
            raise CopyRejected(f"The target is not empty: there are rows in {table}")
    current = connection.scalar(text("SELECT max(version_num) FROM alembic_version"))
    if current is not None and current > revision:
        raise CopyRejected(
            f"The target is not empty: its tables have schema {current}, and the rows have schema {revision}"
        )


def _require_columns(tables: Tables, columns: Mapping[str, list[str]]) -> None:
    different = _name_columns(tables) ^ _name_columns(columns)
    if different:
        raise CopyRejected(f"The rows have other columns than their schema: {', '.join(sorted(different))}")


def _name_columns(tables: Mapping[str, Iterable[str]]) -> set[str]:
    return {f"{table}.{column}" for table, columns in tables.items() for column in columns}


def _execute(connection: Connection, statement: str, tables: Iterable[str]) -> psycopg.Cursor[Any]:
    """Execute a statement with the names of tables."""
    names = sql.SQL(", ").join(sql.Identifier("public", table) for table in tables)
    return _cursor(connection).execute(sql.SQL(cast("Any", statement)).format(names))


@contextmanager
def _suspend_constraints(connection: Connection, tables: Iterable[str]) -> Iterator[None]:
    """Let rows be written in any order and as they are within the block.

    Triggers do not run, and policies do not apply to the owner: COPY writes to no table with forced ones.
    Foreign keys are dropped and created again, which checks all rows at once. References can be circular, and
    deferred checks would need memory for each row.

    Raises:
        CopyFailed: A row refers to a row that is missing.
    """
    keys = connection.execute(_FOREIGN_KEYS).all()
    protected = list(connection.scalars(_PROTECTED))
    for key in keys:
        connection.exec_driver_sql(f"ALTER TABLE {key.table} DROP CONSTRAINT {key.name}")
    for table in protected:
        connection.exec_driver_sql(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    for table in tables:
        _execute(connection, "ALTER TABLE {} DISABLE TRIGGER USER", [table])
    yield
    for table in tables:
        _execute(connection, "ALTER TABLE {} ENABLE TRIGGER USER", [table])
    for key in keys:
        try:
            connection.exec_driver_sql(f"ALTER TABLE {key.table} ADD CONSTRAINT {key.name} {key.definition}")
        except DBAPIError as error:
            raise CopyFailed(f"{key.table}: {_describe(error.orig)}") from error
    for table in protected:
        connection.exec_driver_sql(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def _fill_table(connection: Connection, table: str, source: RowSource, tables: Tables) -> TableDigest:
    """Write the rows of a table; return the digest of what was read."""
    digest = TableDigest()
    statement = sql.SQL("COPY {} ({}) FROM STDIN (ENCODING 'UTF8')").format(
        sql.Identifier("public", table), _list_names(source.list_columns()[table])
    )
    try:
        with _cursor(connection) as cursor, cursor.copy(statement) as copy:
            chunk = bytearray()
            for line in source.read_lines(table, tables):
                digest.add(line)
                chunk += line
                if len(chunk) >= CHUNK_BYTES:
                    copy.write(bytes(chunk))
                    chunk.clear()
            copy.write(bytes(chunk))
    except psycopg.Error as error:
        raise CopyFailed(f"{table}: {_describe(error)}") from error
    return digest


def _describe(error: Any) -> str:
    # Without its context, which has the row.
    return error.diag.message_primary or str(error)


def _reset_sequences(connection: Connection) -> None:
    """Let each sequence continue after the highest number of its column."""
    for sequence, column, table in connection.execute(_SEQUENCES).all():
        connection.exec_driver_sql(
            f"SELECT setval('{sequence}', coalesce(max({column}), 0) + 1, false) FROM {table}"  # noqa: S608 - names of the catalog
        )
