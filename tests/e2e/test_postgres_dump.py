"""Moving the database of compose.yaml to another server, as docs/operations/production.md describes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from tests.support.requirements import skip_or_fail
from tests.support.servers.unprivileged_postgres import build_url, run_as_superuser
from tools.servers.processes import DependencyMissing, PostgresServer, run_postgres
from tools.servers.server import ROOT

DATABASE = LOGIN = "sartiq"


@pytest.fixture
def clusters() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Yield two servers with the superuser and the empty database that the image of PostgreSQL creates."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)  # PostgreSQL, which is not root, reads the dump of the other server
    try:
        with run_postgres(folder / "old") as old, run_postgres(folder / "new") as new:
            for cluster in (old, new):
                run_as_superuser(
                    cluster,
                    f"CREATE ROLE {LOGIN} SUPERUSER LOGIN",
                    f"CREATE DATABASE {DATABASE} OWNER {LOGIN}",
                )
            yield old, new
    except DependencyMissing as error:
        skip_or_fail(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare(url: str, folder: Path) -> str:
    """Migrate and seed a database as a start of the server does, and return what it logged."""
    environment = {**os.environ, "DATA_DIR": str(folder), "DATABASE_URL": url}
    command = [sys.executable, "-m", "handlers", "--prepare-only"]
    prepared = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert prepared.returncode == 0, prepared.stderr
    return prepared.stderr


def count_rows(url: str) -> dict[str, int]:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    names = sqlalchemy.inspect(engine).get_table_names()
    with engine.connect() as connection:
        counts = {
            name: sqlalchemy.select(sqlalchemy.func.count()).select_from(sqlalchemy.table(name))
            for name in names
        }
        rows = {name: connection.execute(count).scalar_one() for name, count in counts.items()}
    engine.dispose()
    return rows


@pytest.mark.slow("it starts two PostgreSQL servers")
def test_a_dump_by_the_superuser_starts_on_another_server(
    clusters: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    old, new = clusters
    source, target = build_url(old, LOGIN, DATABASE), build_url(new, LOGIN, DATABASE)
    prepare(source, tmp_path)
    rows = count_rows(source)
    assert rows["users"] > 0
    old.run("pg_dumpall", "--dbname", source, "--roles-only", "--file", "roles.sql")
    old.run("pg_dump", "--dbname", source, "--format", "custom", "--file", "sartiq.dump")
    # The login exists already, so one statement fails; psql continues.
    new.run("psql", "--quiet", "--dbname", target, "--file", str(old.folder / "data" / "roles.sql"))
    new.run("pg_restore", "--dbname", target, "--exit-on-error", str(old.folder / "data" / "sartiq.dump"))
    assert count_rows(target) == rows
    prepare(target, tmp_path)
    assert count_rows(target) == rows
