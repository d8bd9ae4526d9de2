"""Tests of a server whose database login owns no table: another login owns all tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from db.audit_partitions import set_retention
from tests.support.servers.unprivileged_postgres import (
    build_url,
    run_as_superuser,
    run_unprivileged_postgres,
)
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.processes import PostgresServer
from tools.servers.server import ROOT, running_server


@pytest.fixture
def cluster() -> Iterator[PostgresServer]:
    """Yield a separate PostgreSQL with two unprivileged logins."""
    with run_unprivileged_postgres() as running:
        yield running


@pytest.mark.slow("it starts two servers")
def test_a_server_works_with_a_login_that_owns_nothing(
    cluster: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
    statements = re.findall(r"^ +(.+);$", prepared.stderr, re.MULTILINE)
    assert len(statements) == 6, prepared.stderr
    run_as_superuser(cluster, *statements)

    with running_server(tmp_path, **databases) as server, Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        brand = api.post("/brands/", json={"name": "Linen"})
        assert api.get(f"/brands/{brand['id']}") == brand
    # The database is migrated, so the next server needs no login of the owner.
    with (
        running_server(tmp_path, DATABASE_URL=databases["DATABASE_URL"]) as server,
        Api(server.origin) as api,
    ):
        api.sign_in(EMAIL, PASSWORD)
        assert api.get(f"/brands/{brand['id']}") == brand
    engine = sqlalchemy.create_engine(databases["DATABASE_URL"].replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM brands").scalar() == 0
    # Only the owner of the tables sets how long audit events are kept.
    for login, kept in (("DATABASE_URL", None), ("MIGRATION_DATABASE_URL", 24)):
        set_retention(databases[login], 24)
        with engine.connect() as connection:
            months = connection.exec_driver_sql("SELECT sartiq_audit_retention_months()").scalar()
            assert months == kept
            connection.exec_driver_sql("SET LOCAL ROLE sartiq_system")
            assert connection.exec_driver_sql("SELECT maintain_audit_partitions()").scalar() == []
    assert caplog.text.count("AUDIT_RETENTION_MONTHS is not used") == 1
    engine.dispose()
