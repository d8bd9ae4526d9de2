"""Run PgBouncer in transaction mode: its connections to PostgreSQL belong to one client per transaction."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import make_url

from tools.servers.databases import let_in
from tools.servers.processes import DependencyMissing, wait_until
from tools.servers.server import free_port, stop

ACCOUNT = "nobody"

CONFIGURATION = """
[databases]
{database} = host={host} port={postgres_port} dbname={database} user={login} {password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 1000
max_prepared_statements = 500
{settings}
"""


@contextlib.contextmanager
def run_pgbouncer(folder: Path, database_url: str, connections: int, **settings: object) -> Iterator[str]:
    """Run PgBouncer before one database; yield the URL for the servers.

    Args:
        folder: Where its configuration and log are written. Created if it is missing.
        database_url: The database, with the login of the servers.
        connections: How many connections it opens to PostgreSQL.
        settings: Further settings of PgBouncer.

    Raises:
        DependencyMissing: PgBouncer is not installed.
    """
    program, port, url = require_program("pgbouncer"), free_port(), make_url(database_url)
    if os.geteuid() == 0:
        settings["user"] = ACCOUNT  # PgBouncer does not run as root
        let_in(ACCOUNT)
    folder.mkdir(exist_ok=True)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        CONFIGURATION.format(
            database=url.database,
            host=url.host or url.query["host"],
            postgres_port=url.port or url.query["port"],
            login=url.username,
            password=f"password={url.password}" if url.password else "",
            port=port,
            connections=connections,
            settings="\n".join(f"{name} = {value}" for name, value in settings.items()),
        ),
        encoding="utf-8",
    )
    with run_program([program, str(configuration)], folder / "pgbouncer.log", port):
        yield url.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)


def require_program(name: str) -> str:
    """Return the path of a program, which may be in a folder that only root searches.

    Raises:
        DependencyMissing: The program is not installed.
    """
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise DependencyMissing(f"{name} (on Debian: apt-get install {name})")
    return path


@contextlib.contextmanager
def run_program(command: Sequence[str], log: Path, port: int) -> Iterator[None]:
    """Run a program within the block, which begins when the program listens on its port."""

    def accepts_connections() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")
        with (
            contextlib.suppress(OSError),  # an error until the program listens
            socket.create_connection(("127.0.0.1", port), 1),
        ):
            return True
        return False

    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(accepts_connections, f"{Path(command[0]).name} accepts connections")
        yield
    finally:
        stop(process)
