"""The environment of the benchmark: PostgreSQL on one core, servers with the same rows on the other."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy

from db.base import Base
from tools.bench.feature_toggles import disable_policies
from tools.bench.processes import cpu_seconds, pin_process, pinned_to_cores
from tools.bench.rows import Scale, build_token, create_rows, write_published_images
from tools.bench.servers import OURS, ServerSpec
from tools.servers.processes import PostgresServer, run_postgres
from tools.servers.server import ROOT, free_port, stop, wait_for_response

SERVER_CORE, DATABASE_CORE = BOTH_CORES = 0, 1
POSTGRESQL = {
    "max_connections": "200",
    "shared_buffers": "1GB",
    # The benchmark measures the servers, not the disk, so commits do not wait for it.
    "synchronous_commit": "off",
    "max_wal_size": "4GB",
    # Counts statements while `statement_tracking("top")` is in effect.
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_utility": "off",
}
CREATE_ROLES = """
CREATE ROLE sartiq LOGIN CREATEDB PASSWORD 'sartiq';
CREATE ROLE sartiq_app NOLOGIN;
CREATE ROLE sartiq_system NOLOGIN;
GRANT sartiq_app, sartiq_system TO sartiq;
"""

# The peers store the responses of idempotency keys in a table of their own.
CREATE_STORED_RESPONSES = """
CREATE TABLE stored_responses (
    user_id uuid, key text, fingerprint bytea NOT NULL, body bytea NOT NULL, PRIMARY KEY (user_id, key)
)
"""


@dataclass(frozen=True)
class BenchServer:
    """A running server."""

    spec: ServerSpec
    url: str
    process_id: int
    start_cpu_seconds: float
    """The CPU time until the first response."""
    database: str


@dataclass(frozen=True)
class BenchEnvironment:
    """The PostgreSQL cluster with the database `rows`, which is the template of all databases."""

    cluster: PostgresServer
    folder: Path
    scale: Scale

    @property
    def media(self) -> Path:
        """Return the folder of the published images, which all servers read."""
        return self.folder / "media"

    def admin_url(self, database: str = "postgres") -> str:
        """Return the URL of a database for a superuser, to which no row-level security policy applies."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.cluster.port}/{database}"

    def url(self, database: str) -> str:
        """Return the URL of a database for the servers."""
        return f"postgresql+psycopg://sartiq:sartiq@127.0.0.1:{self.cluster.port}/{database}"

    def copy(self, name: str) -> None:
        """Create a database of this name with all rows."""
        self.run(f"CREATE DATABASE {name} TEMPLATE rows OWNER sartiq")

    @contextlib.contextmanager
    def using_both_cores(self) -> Iterator[None]:
        """Run PostgreSQL and all processes that start within the block on both cores."""
        pin_process(self.cluster.process_id, *BOTH_CORES)
        try:
            with pinned_to_cores(*BOTH_CORES):
                yield
        finally:
            pin_process(self.cluster.process_id, DATABASE_CORE)

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements one by one, outside of a transaction."""
        engine = sqlalchemy.create_engine(self.admin_url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()


def statement_tracking(mode: str) -> tuple[str, str]:
    """Return the SQL that makes PostgreSQL start (`top`) or stop (`none`) counting statements."""
    return f"ALTER SYSTEM SET pg_stat_statements.track = {mode}", "SELECT pg_reload_conf()"


@contextlib.contextmanager
def run_environment(folder: Path, scale: Scale) -> Iterator[BenchEnvironment]:
    """Start PostgreSQL and create the database `rows` with the product's schema and all rows."""
    with pinned_to_cores(DATABASE_CORE), run_postgres(folder / "postgresql", **POSTGRESQL) as cluster:
        environment = BenchEnvironment(cluster, folder, scale)
        environment.run(*CREATE_ROLES.strip().splitlines(), "CREATE DATABASE rows OWNER sartiq")
        environment.run("CREATE EXTENSION pg_stat_statements", *statement_tracking("none"))
        variables = OURS.environment(folder / "prepared", free_port(), environment.url("rows"))
        command = [sys.executable, "-m", "handlers", "--prepare-only"]
        with (folder / "preparing.log").open("wb") as log:
            subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=True, stderr=log)
        create_rows(environment.admin_url("rows"), scale)
        write_published_images(environment.media)
        yield environment


@contextlib.contextmanager
def run_server(environment: BenchEnvironment, spec: ServerSpec) -> Iterator[BenchServer]:
    """Run a server on a copy of the rows. For a peer, disable policies and triggers: only ours uses them."""
    environment.copy(spec.name)
    if not spec.is_ours:
        disable_policies(environment.url(spec.name))
        tables = [table.name for table in Base.metadata.sorted_tables]
        environment.run(
            *(f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in tables),
            CREATE_STORED_RESPONSES,
            "ALTER TABLE stored_responses OWNER TO sartiq",
            database=spec.name,
        )
    with start_server(environment, spec, spec.name) as server:
        yield server


@contextlib.contextmanager
def start_server(
    bench_environment: BenchEnvironment,
    spec: ServerSpec,
    database: str,
    cores: Sequence[int] = (SERVER_CORE,),
    **environment: str,
) -> Iterator[BenchServer]:
    """Run a server on a database. Its start ends with the first successful read of a product."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = Path(tempfile.mkdtemp(prefix=spec.name, dir=bench_environment.folder))
    variables = spec.environment(folder, port, bench_environment.url(database))
    variables |= {"MEDIA_DIR": str(bench_environment.media), **environment}
    command = [part.format(port=port) for part in spec.command]
    with (folder / "log").open("ab") as log, pinned_to_cores(*cores):
        process = subprocess.Popen(
            command,
            cwd=spec.folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        product_url = f"{url}/api/v1/products/{bench_environment.scale.product_id(1, 1)}"
        headers = {"Authorization": f"Bearer {build_token(1)}"}
        wait_for_response(product_url, process, folder / "log", headers, pause=0.01)
        yield BenchServer(spec, url, process.pid, cpu_seconds(process.pid), database)
    finally:
        stop(process)
