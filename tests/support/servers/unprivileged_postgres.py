"""Run a separate PostgreSQL server whose databases belong to logins without privileges."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy

from tests.support.requirements import skip_or_fail
from tools.servers.processes import DependencyMissing, PostgresServer, run_postgres


@contextmanager
def run_unprivileged_postgres() -> Iterator[PostgresServer]:
    """Run a server with the logins `sartiq_owner` and `sartiq_server`, and `studio`, which the first owns."""
    folder = Path(tempfile.mkdtemp())
    try:
        with run_postgres(folder / "postgresql") as running:
            run_as_superuser(
                running,
                "CREATE ROLE sartiq_owner LOGIN",
                "CREATE ROLE sartiq_server LOGIN",
                "CREATE DATABASE studio OWNER sartiq_owner",
            )
            yield running
    except DependencyMissing as error:
        skip_or_fail(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_as_superuser(cluster: PostgresServer, *statements: str, database: str = "postgres") -> None:
    """Run statements as a superuser of PostgreSQL."""
    url = sqlalchemy.make_url(cluster.url).set(database=database)
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def build_url(cluster: PostgresServer, login: str, database: str = "studio") -> str:
    """Return the URL of a database for a login."""
    return f"postgresql://{login}@127.0.0.1:{cluster.port}/{database}"
