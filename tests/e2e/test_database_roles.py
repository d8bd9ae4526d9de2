"""A server whose login owns nothing: the tables are another login's, and the roles were made by a third."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from tests.e2e.demo import EMAIL, PASSWORD, Api
from tests.e2e.server import ROOT, running_server
from tests.resilience.processes import DependencyMissing, PostgresServer, run_postgres
from tests.support.requirements import skip_or_fail


@pytest.fixture
def cluster() -> Iterator[PostgresServer]:
    """A PostgreSQL of its own with two logins that may do nothing, and a database of the first."""
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
    except DependencyMissing as absent:
        skip_or_fail(str(absent))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_as_superuser(cluster: PostgresServer, *statements: str) -> None:
    """Run statements as who may everything."""
    engine = sqlalchemy.create_engine(cluster.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def build_url(cluster: PostgresServer, login: str) -> str:
    """The address of the database for a login."""
    return f"postgresql://{login}@127.0.0.1:{cluster.port}/studio"


def test_the_login_of_the_server_owns_nothing_and_serves(cluster: PostgresServer, tmp_path: Path) -> None:
    databases = {
        "DATABASE_URL": build_url(cluster, "sartiq_server"),
        "MIGRATION_DATABASE_URL": build_url(cluster, "sartiq_owner"),
    }
    prepared = subprocess.run(
        [sys.executable, "-m", "handlers", "--prepare-only"],
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(tmp_path), **databases},
        capture_output=True,
        text=True,
        check=False,
    )
    assert prepared.returncode == 2
    assert prepared.stderr.startswith("Not started: A superuser of PostgreSQL must run, once:")
    told = re.findall(r"^ +(.+);$", prepared.stderr, re.MULTILINE)
    assert len(told) == 6, prepared.stderr
    run_as_superuser(cluster, *told)

    with running_server(tmp_path, **databases) as server, Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        made = api.post("/brands/", json={"name": "Linen"})
        assert api.get(f"/brands/{made['id']}") == made
    engine = sqlalchemy.create_engine(databases["DATABASE_URL"].replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM brands").scalar() == 0
    engine.dispose()
