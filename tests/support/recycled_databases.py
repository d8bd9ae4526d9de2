"""Lend migrated databases to tests that commit, and empty them for the next test.

A copy of the template is 800 files: creating and dropping it takes far more CPU than deleting a few rows. The
statements are sent without SQLAlchemy, which would take as long again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

from db.base import Base
from db.models import AuditEvent, Change, PendingTouch, RowCount, UsageRecord
from db.rls.session_role import MIGRATING, SYSTEM_ROLE

_CATALOGS = {
    "pg_attribute": "attrelid >= 16384",
    "pg_class": "relnamespace = 'public'::regnamespace",
    "pg_constraint": "oid >= 16384",
    "pg_db_role_setting": "setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
    "pg_default_acl": "true",
    "pg_extension": "true",
    "pg_namespace": "nspname !~ '^pg_(temp|toast)'",
    "pg_policy": "true",
    "pg_proc": "oid >= 16384",
    "pg_rewrite": "oid >= 16384",
    "pg_trigger": "tgrelid >= 16384",
    "pg_type": "oid >= 16384",
}
"""The catalogs that define a schema, and the conditions for their rows that are not PostgreSQL's own."""
# A statement that changes the schema inserts or updates such a row, which then has its xmin, or deletes one.
_FINGERPRINT = " UNION ALL ".join(
    (
        "SELECT version_num, 0, 0 FROM alembic_version",
        *(
            f"SELECT '{name}', count(*), max(xmin::text::bigint) FROM {name} WHERE {condition}"  # noqa: S608 - constants
            for name, condition in _CATALOGS.items()
        ),
    )
)
_END_OTHER_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = session_user AND pid <> pg_backend_pid()
"""
_DELETE_AUDIT_EVENTS = """
    DO $$ BEGIN IF EXISTS (SELECT 1 FROM audit_events) THEN
        ALTER TABLE audit_events DISABLE TRIGGER USER;
        DELETE FROM audit_events;
        ALTER TABLE audit_events ENABLE TRIGGER USER;
    END IF; END $$
"""
_RESTART_SEQUENCES = """
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
    FROM pg_sequences WHERE last_value IS NOT NULL
"""
# Triggers write the last ones when rows of the others are deleted.
_TABLES = [
    *(table.name for table in reversed(Base.metadata.sorted_tables) if table is not AuditEvent.__table__),
    *(model.__tablename__ for model in (RowCount, UsageRecord, Change, PendingTouch)),
]
_EMPTY = "; ".join(
    (
        _DELETE_AUDIT_EVENTS,
        f"SET LOCAL ROLE {SYSTEM_ROLE}",
        *(f"DELETE FROM {name}" for name in _TABLES),  # noqa: S608 - names of models
        "SET LOCAL ROLE NONE",
        _RESTART_SEQUENCES,
    )
)


class RecycledDatabases:
    """The migrated databases of a process that no test uses at the moment.

    Args:
        create: Creates a database with the newest schema and no rows, and returns its URL.
        drop: Drops a database whose schema a test has changed.
    """

    def __init__(self, create: Callable[[], str], drop: Callable[[str], object]) -> None:
        self._create, self._drop = create, drop
        self._free: list[str] = []
        self._fingerprints: dict[str, list[tuple[Any, ...]]] = {}

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Yield the URL of a database with the newest schema and no rows that nothing else uses."""
        url = self._free.pop() if self._free else self._create_new()
        try:
            yield url
        finally:
            if self._empty(url):
                self._free.append(url)
            else:
                self._drop(url)

    def close(self) -> None:
        """Drop all databases."""
        while self._free:
            self._drop(self._free.pop())

    def _create_new(self) -> str:
        url = self._create()
        with _connect(url) as connection:
            self._fingerprints[url] = connection.execute(_FINGERPRINT).fetchall()
        return url

    def _empty(self, url: str) -> bool:
        """Delete all rows; return False if the schema is not that of the template."""
        with _connect(url) as connection:
            connection.execute(_END_OTHER_SESSIONS)
            try:
                fingerprint = connection.execute(_FINGERPRINT).fetchall()
            except psycopg.errors.UndefinedTable:
                return False
            if fingerprint != self._fingerprints[url]:
                return False
            connection.execute(_EMPTY)
            # Deleting audit events changes their triggers.
            self._fingerprints[url] = connection.execute(_FINGERPRINT).fetchall()
        return True


@contextmanager
def _connect(url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Yield a connection of the owner of the tables, in a transaction."""
    uri = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(uri, prepare_threshold=None) as connection:
        connection.execute(f"SET LOCAL {MIGRATING} = 'on'")
        yield connection
