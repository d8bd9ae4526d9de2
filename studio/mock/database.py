"""The database of a mock, which returns to the rows that it has at the start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import psycopg
from sqlalchemy import Connection, Engine, text

from db.engine import build_engine
from db.session import Database

GRACE_SECONDS = 0.1
"""How long transactions may take to end when a reset begins. Most need a few milliseconds."""
END_SECONDS = 10
"""How long a thread may take to notice that its transaction was ended."""

# The schema and its revision never change while a mock runs.
_LIST_TABLES = text(
    "SELECT format('%I', relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
    "AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'alembic_version' ORDER BY relname"
)
_LIST_SEQUENCES = text(
    "SELECT format('%I', sequencename), coalesce(last_value, start_value), last_value IS NOT NULL "
    "FROM pg_sequences WHERE schemaname = 'public'"
)
_END_TRANSACTIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type = 'client backend' AND state <> 'idle' "
    "AND pid <> pg_backend_pid()"
)
# Triggers would count and record the changes, and check foreign keys to rows that come back later.
_DISABLE_TRIGGERS = text("SET LOCAL session_replication_role = replica")
_SET_SEQUENCE = text("SELECT setval(CAST(:name AS regclass), :value, :is_called)")


@dataclass(frozen=True)
class _Start:
    """The rows of each table in PostgreSQL's binary format, and the value of each sequence."""

    tables: dict[str, bytes]
    sequences: list[tuple[str, int, bool]]


class MockDatabase(Database):
    """A database that returns to the rows it has when this object is created.

    Deleting and inserting the rows takes a tenth of the time of a copy of the database, most of whose 800
    files are catalogs and indexes.

    Args:
        engine: Connects to the database.
        superuser_url: The URL of the same database with the superuser, who may disable triggers.
        check: Called before each transaction begins; raises an exception to prevent it.
    """

    def __init__(self, engine: Engine, superuser_url: str, check: Callable[[], object]) -> None:
        super().__init__(engine)
        self._check = check
        self._changed = threading.Condition()
        self._running, self._is_resetting = 0, False
        self._superuser = build_engine(superuser_url, pool_size=1)
        with self._superuser.begin() as connection:
            self._start = _read_start(connection)

    @contextmanager
    def returned_to_start(self) -> Iterator[None]:
        """Return to the rows at the start, and run the block before the next transaction begins.

        Transactions that run get a tenth of a second, and then lose their connection. When the block begins,
        all of them have ended. Those that others begin meanwhile wait until it has ended.
        """
        with self._changed:
            self._is_resetting = True
            self._changed.wait_for(self._is_unused, GRACE_SECONDS)
        try:
            with self._superuser.begin() as connection:
                connection.execute(_END_TRANSACTIONS)
                _write_start(connection, self._start)
            with self._changed:
                self._changed.wait_for(self._is_unused, END_SECONDS)
            yield
        finally:
            with self._changed:
                self._is_resetting = False
                self._changed.notify_all()

    def dispose(self) -> None:
        """Close all idle connections."""
        super().dispose()
        self._superuser.dispose()

    @contextmanager
    def _hold_connection(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_resetting)
            self._check()
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _is_unused(self) -> bool:
        return self._running == 0


def _read_start(connection: Connection) -> _Start:
    tables = {}
    with _get_driver_connection(connection).cursor() as cursor:
        for table in connection.scalars(_LIST_TABLES).all():
            # A query, because COPY reads no partitioned table.
            with cursor.copy(f"COPY (TABLE public.{table}) TO STDOUT (FORMAT binary)".encode()) as copy:
                tables[table] = b"".join(copy)
    sequences = [(name, value, is_called) for name, value, is_called in connection.execute(_LIST_SEQUENCES)]
    return _Start(tables, sequences)


def _write_start(connection: Connection, start: _Start) -> None:
    connection.execute(_DISABLE_TRIGGERS)
    with _get_driver_connection(connection).cursor() as cursor:
        statements = (f"DELETE FROM public.{table}" for table in start.tables)  # noqa: S608 - from the catalog
        cursor.execute(";".join(statements).encode())
        for table, rows in start.tables.items():
            with cursor.copy(f"COPY public.{table} FROM STDIN (FORMAT binary)".encode()) as copy:
                copy.write(rows)
    for name, value, is_called in start.sequences:
        connection.execute(_SET_SEQUENCE, {"name": f"public.{name}", "value": value, "is_called": is_called})


def _get_driver_connection(connection: Connection) -> psycopg.Connection:
    """Return the connection of psycopg, which can copy rows, in its running transaction."""
    return cast("psycopg.Connection", connection.connection.driver_connection)


def drop_template_databases(superuser_url: str) -> None:
    """Drop the databases that only CREATE DATABASE uses: 600 files that each start of a mock would copy."""
    engine = build_engine(superuser_url, pool_size=1)
    try:
        # PostgreSQL drops no database in a transaction.
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            for name in ("template0", "template1"):
                connection.execute(text(f"ALTER DATABASE {name} IS_TEMPLATE false"))
                connection.execute(text(f"DROP DATABASE {name}"))
    finally:
        engine.dispose()
