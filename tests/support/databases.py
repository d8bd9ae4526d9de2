"""Create temporary databases: an SQLite file, or a database on the PostgreSQL server for tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from db.engine import build_engine

DEFAULT_ADMIN_URL = "postgresql+psycopg://postgres@127.0.0.1/postgres"

on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True, scope="session")
"""Run a test on PostgreSQL only, for features that SQLite lacks."""


@contextmanager
def create_database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a new database without tables, and drop it afterwards.

    Raises:
        OperationalError: No PostgreSQL server accepts TEST_POSTGRESQL_URL.
    """
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'test.db'}"
        return
    url = make_url(os.environ.get("TEST_POSTGRESQL_URL", DEFAULT_ADMIN_URL))
    admin_url = url.update_query_dict({"connect_timeout": "3"}).render_as_string(hide_password=False)
    server = build_engine(admin_url, pool_size=1).execution_options(isolation_level="AUTOCOMMIT")
    # A random name, so that parallel runs do not collide.
    name = f"test_{uuid.uuid4().hex}"
    try:
        with server.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            with server.connect() as connection:
                connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    finally:
        server.dispose()
