"""The stage of the benchmark: PostgreSQL on one core, the servers on the other, each with the same rows."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy

from db.base import Base
from tests.bench.contenders import OURS, Contender
from tests.bench.processes import move, on_cores
from tests.bench.rows import Scale, fill, token_of
from tests.bench.without import take_policies_away
from tests.e2e.server import ROOT, free_port, stop, wait_for_answer
from tests.faults.stage import Cluster, own_postgresql

SERVER_CORE, OTHER_CORE = BOTH_CORES = 0, 1
POSTGRESQL = {
    "max_connections": "200",
    "shared_buffers": "1GB",
    # The servers are measured, not the disk: a commit does not wait for it.
    "synchronous_commit": "off",
    "max_wal_size": "4GB",
    # Counts statements when it is told to.
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_utility": "off",
}
LOGIN = """
CREATE ROLE sartiq LOGIN CREATEDB PASSWORD 'sartiq';
CREATE ROLE sartiq_app NOLOGIN;
CREATE ROLE sartiq_system NOLOGIN;
GRANT sartiq_app, sartiq_system TO sartiq;
"""


@dataclass(frozen=True)
class Serving:
    """A contender that answers."""

    contender: Contender
    url: str
    process_id: int
    seconds_to_first_answer: float
    database: str


@dataclass(frozen=True)
class Stage:
    """The cluster with the database that all are copied from."""

    cluster: Cluster
    folder: Path
    scale: Scale

    def admin_url(self, database: str = "postgres") -> str:
        """The database, as a login that no policy holds."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.cluster.port}/{database}"

    def url(self, database: str) -> str:
        """The database, as the servers use it."""
        return f"postgresql+psycopg://sartiq:sartiq@127.0.0.1:{self.cluster.port}/{database}"

    def copy(self, name: str) -> None:
        """Make a database of this name with all rows."""
        self.run(f"CREATE DATABASE {name} TEMPLATE rows OWNER sartiq")

    @contextlib.contextmanager
    def on_both_cores(self) -> Iterator[None]:
        """Let PostgreSQL, and whatever is started within the block, run on both cores."""
        move(self.cluster.process_id, *BOTH_CORES)
        try:
            with on_cores(*BOTH_CORES):
                yield
        finally:
            move(self.cluster.process_id, OTHER_CORE)

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements one by one, outside of a transaction."""
        engine = sqlalchemy.create_engine(self.admin_url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()


def tracking(what: str) -> tuple[str, str]:
    """Return what makes PostgreSQL count statements from now on (`top`), or no more (`none`)."""
    return f"ALTER SYSTEM SET pg_stat_statements.track = {what}", "SELECT pg_reload_conf()"


@contextlib.contextmanager
def set_up(folder: Path, scale: Scale) -> Iterator[Stage]:
    """Start PostgreSQL, and make the database `rows` with the schema of the product and all rows."""
    with on_cores(OTHER_CORE), own_postgresql(folder / "postgresql", **POSTGRESQL) as cluster:
        stage = Stage(cluster, folder, scale)
        stage.run(*LOGIN.strip().splitlines(), "CREATE DATABASE rows OWNER sartiq")
        stage.run("CREATE EXTENSION pg_stat_statements", *tracking("none"))
        environment = OURS.environment(folder / "prepared", free_port(), stage.url("rows"))
        command = [sys.executable, "-m", "handlers", "--prepare-only"]
        with (folder / "preparing.log").open("wb") as log:
            subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, stderr=log)
        fill(stage.admin_url("rows"), scale)
        yield stage


@contextlib.contextmanager
def serving(stage: Stage, contender: Contender) -> Iterator[Serving]:
    """Run a contender on a copy of the rows, without what serves ours alone when it is a peer."""
    stage.copy(contender.name)
    if not contender.is_ours:
        take_policies_away(stage.url(contender.name))
        tables = [table.name for table in Base.metadata.sorted_tables]
        stage.run(*(f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in tables), database=contender.name)
    with started(stage, contender, contender.name) as server:
        yield server


@contextlib.contextmanager
def started(
    stage: Stage,
    contender: Contender,
    database: str,
    cores: Sequence[int] = (SERVER_CORE,),
    **environment: str,
) -> Iterator[Serving]:
    """Run a contender on a database, and say how long it took until a product was answered."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = Path(tempfile.mkdtemp(prefix=contender.name, dir=stage.folder))
    told = {**contender.environment(folder, port, stage.url(database)), **environment}
    command = [part.format(port=port) for part in contender.command]
    with (folder / "log").open("ab") as log, on_cores(*cores):
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=contender.folder,
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        address = f"{url}/api/v1/products/{stage.scale.product_id(1, 1)}"
        signed = {"Authorization": f"Bearer {token_of(1)}"}
        wait_for_answer(address, process, folder / "log", signed, pause=0.01)
        yield Serving(contender, url, process.pid, time.perf_counter() - began, database)
    finally:
        stop(process)
