"""Create temporary databases: an SQLite file, or a database on the PostgreSQL server for tests."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text

from db.engine import build_engine

DEFAULT_ADMIN_URL = "postgresql+psycopg://postgres@127.0.0.1/postgres"

on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True, scope="session")
"""Run a test on PostgreSQL only, for features that SQLite lacks."""


def admin_url() -> str:
    """Return the URL of a database on the PostgreSQL server for tests, whose role may create databases."""
    return _postgresql_url().update_query_dict({"connect_timeout": "3"}).render_as_string(hide_password=False)


def _postgresql_url() -> URL:
    return make_url(os.environ.get("TEST_POSTGRESQL_URL", DEFAULT_ADMIN_URL))


@contextmanager
def create_database(kind: str, folder: Path, template: str | None = None) -> Iterator[str]:
    """Yield the URL of a new database, and drop it afterwards.

    Args:
        kind: "sqlite" or "postgresql".
        folder: Where the file of an SQLite database is created.
        template: The URL of a database to copy. It must have no open connections.

    Raises:
        OperationalError: No PostgreSQL server accepts TEST_POSTGRESQL_URL.
    """
    if kind == "sqlite":
        path = folder / "test.db"
        if template is not None:
            shutil.copyfile(str(make_url(template).database), path)
        yield f"sqlite:///{path}"
        return
    server = build_engine(admin_url(), pool_size=1).execution_options(isolation_level="AUTOCOMMIT")
    # A random name, so that parallel runs do not collide.
    name = f"test_{uuid.uuid4().hex}"
    source = "template1" if template is None else make_url(template).database
    try:
        with server.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{source}"'))
        try:
            yield _postgresql_url().set(database=name).render_as_string(hide_password=False)
        finally:
            with server.connect() as connection:
                connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    finally:
        server.dispose()
