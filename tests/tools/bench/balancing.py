"""A balancer and a connection pooler for servers under test: HAProxy, and PgBouncer in transaction mode."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from db.engine import MAX_LOCK_WAIT_MILLISECONDS
from db.rls.session_role import SYSTEM_ROLE
from tests.e2e.server import free_port, stop
from tests.resilience.processes import DependencyMissing, wait_until

STATEMENT_SECONDS = 60
"""The default of REQUEST_SECONDS."""
SERVER_CONNECTIONS = 20
"""Connections of PgBouncer to PostgreSQL. The servers together open more connections to PgBouncer."""
PGBOUNCER = """
[databases]
{database} = host=127.0.0.1 port={postgres_port} dbname={database} {login} connect_query='{setup}'

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 1000
max_prepared_statements = 500
{user}
"""
LOGIN = "user=sartiq password=sartiq"
# In transaction mode, the SET statements of a new connection of the application reach only the connection of
# PgBouncer that happens to run them. So PgBouncer runs them on each of its own. Without the role, which a
# transaction of the system needs, tokens are rejected at random: the login itself sees no rows.
CONNECTION_SETUP = (
    f"SET ROLE {SYSTEM_ROLE}; SET jit = off; SET statement_timeout = {STATEMENT_SECONDS}000; "
    f"SET lock_timeout = {MAX_LOCK_WAIT_MILLISECONDS}"
)
HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    option forwardfor
    timeout connect 5s
    timeout client 120s
    timeout server 120s
{sections}
"""
SECTION = """
frontend {name}
    bind 127.0.0.1:{port}
    default_backend {name}_servers
backend {name}_servers
    balance roundrobin
    option httpchk GET /api/v1/utils/readiness
{servers}
"""


def _require(program: str) -> str:
    """Return the path of a program, which may be in a folder that only root searches.

    Raises:
        DependencyMissing: The program is not installed.
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise DependencyMissing(f"{program} (on Debian: apt-get install {program})")
    return path


def require_programs() -> None:
    """Raise `DependencyMissing` if a program is not installed."""
    for program in ("haproxy", "pgbouncer"):
        _require(program)


@contextlib.contextmanager
def _run(command: Sequence[str], log: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    def accepts_connections() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")
        # suppressed: refused until the program listens
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(accepts_connections, f"{Path(command[0]).name} accepts connections")
        yield process
    finally:
        stop(process)


@contextlib.contextmanager
def run_pgbouncer(
    folder: Path, postgres_port: int, database: str, connections: int = SERVER_CONNECTIONS
) -> Iterator[str]:
    """Run PgBouncer in transaction mode before one database; yield the URL for the servers."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        PGBOUNCER.format(
            database=database,
            postgres_port=postgres_port,
            port=port,
            connections=connections,
            login=LOGIN,
            setup=CONNECTION_SETUP,
            # PgBouncer refuses to run as root.
            user="user = postgres" if os.geteuid() == 0 else "",
        ),
        encoding="utf-8",
    )
    with _run([_require("pgbouncer"), str(configuration)], folder / "pgbouncer.log", port):
        yield f"postgresql+psycopg://sartiq:sartiq@127.0.0.1:{port}/{database}"


@contextlib.contextmanager
def run_haproxy(folder: Path, backends: Mapping[str, tuple[int, Sequence[int]]]) -> Iterator[None]:
    """Run HAProxy within the block.

    Args:
        backends: The port to listen on and the ports of the servers, by a name for each group.
    """
    sections = [
        SECTION.format(
            name=name,
            port=port,
            servers="\n".join(f"    server s{each} 127.0.0.1:{each} check" for each in ports),
        )
        for name, (port, ports) in backends.items()
    ]
    configuration = folder / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(sections="".join(sections)), encoding="utf-8")
    (first, _), *_ = backends.values()
    with _run([_require("haproxy"), "-db", "-f", str(configuration)], folder / "haproxy.log", first):
        yield
