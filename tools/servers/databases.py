"""Create temporary databases on the PostgreSQL server for tests."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url, text

from db.embedded import use_cluster
from db.embedded.installation import SUPERUSER
from db.engine import build_engine
from db.migrations import upgrade
from studio.mock.folders import CLUSTER, temporary_folder

UNREACHABLE_URL = "postgresql+psycopg://nobody@127.0.0.1:9/none"
"""A URL at which no server listens, for tests of outages and for those that open no connection."""

MEMORY_BYTES = 2 * 1024**3
"""What the databases of a run take at most in memory, with room to spare."""

_SERVER, _FOLDER = "TEST_POSTGRESQL_URL", "TEST_POSTGRESQL_FOLDER"
_running = ExitStack()


def server_url() -> URL:
    """Return the URL of a database on the PostgreSQL server for tests, whose login may create databases.

    Without TEST_POSTGRESQL_URL, the first call starts an embedded server. This process and all that it starts
    afterwards share it.
    """
    if _SERVER not in os.environ:
        _start_server()
    return make_url(os.environ[_SERVER])


def _start_server() -> None:
    folder = _running.enter_context(temporary_folder("sartiq-tests.", _find_memory())) / CLUSTER
    atexit.register(_stop_server, os.getpid())
    cluster = _running.enter_context(use_cluster(folder, is_durable=False))
    # A login that is no superuser cannot drop a database in which a worker of the autovacuum runs.
    _execute("ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()", url=cluster.superuser_url)
    os.environ[_SERVER], os.environ[_FOLDER] = cluster.url_of("sartiq"), str(folder)


def _find_memory() -> Path | None:
    """Return a folder in memory with enough space; None if there is none.

    A database has a thousand files: on a disk, copying them takes eight times the CPU time.
    """
    memory = Path("/dev/shm")  # noqa: S108 - only for a folder with a random name
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= MEMORY_BYTES:
        return memory
    return None


def _stop_server(pid: int) -> None:
    if os.getpid() == pid:  # not in a fork
        _running.close()


def let_in(account: str) -> None:
    """Let another user of the operating system sign in at the embedded server."""
    url = server_url()
    if _FOLDER not in os.environ:
        return
    rules = Path(os.environ[_FOLDER]) / "data" / "pg_ident.conf"
    with rules.open("a") as file:
        file.write(f"owner {account} {url.username}\n")
    socket_folder = Path(str(url.query["host"]))
    socket_folder.chmod(0o755)
    (socket_folder / f".s.PGSQL.{url.query['port']}").chmod(0o777)
    superuser = url.set(username=SUPERUSER, database="postgres").render_as_string(hide_password=False)
    _execute("SELECT pg_reload_conf()", url=superuser)


@contextmanager
def create_database(template: str | None = None) -> Iterator[str]:
    """Yield the URL of a new database, and drop it afterwards.

    Args:
        template: The URL of a database to copy. It must have no open connections.

    Raises:
        OperationalError: No PostgreSQL server accepts TEST_POSTGRESQL_URL.
    """
    url = new_database(template)
    try:
        yield url
    finally:
        drop_database(url)


def new_database(template: str | None = None) -> str:
    """Create a database and return its URL. The caller drops it.

    Args:
        template: The URL of a database to copy. It must have no open connections.

    Raises:
        OperationalError: No PostgreSQL server accepts TEST_POSTGRESQL_URL.
    """
    # A random name, so that parallel runs do not collide.
    name = f"test_{uuid.uuid4().hex}"
    source = "template1" if template is None else make_url(template).database
    _execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY FILE_COPY')
    return server_url().set(database=name).render_as_string(hide_password=False)


class DatabaseFactory:
    """Creates the databases for the tests of one process, most of them as copies of a template.

    Copies are made faster than migrations run. The first process that needs a template creates it, and the
    last one that ends drops it.

    Args:
        folder: The folder of the templates, which all processes of the run share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._templates: dict[str, str] = {}

    def get_template(self, name: str = "migrated", fill: Callable[[str], object] = upgrade) -> str:
        """Return the URL of a template, by default of one with the newest schema. No process connects to it.

        Args:
            name: The name of the template in this run.
            fill: Fills the empty database at this URL, once per run.
        """
        if name not in self._templates:
            with self._lock(name) as folder:
                url, users = folder / "url", folder / "users"
                if not url.exists():
                    url.write_text(self._create_template(fill), "utf-8")
                with users.open("a") as file:
                    file.write(f"{os.getpid()}\n")
                self._templates[name] = url.read_text("utf-8")
        return self._templates[name]

    def _create_template(self, fill: Callable[[str], object]) -> str:
        url = new_database()
        try:
            fill(url)
        except BaseException:
            drop_database(url)
            raise
        return url

    def copy_migrated(self) -> AbstractContextManager[str]:
        """Yield the URL of a new database with the newest schema and no rows."""
        return create_database(self.get_template())

    def close(self) -> None:
        """Drop the templates that no other process uses."""
        for name, template in self._templates.items():
            with self._lock(name) as folder:
                users = folder / "users"
                left = [line for line in users.read_text().splitlines() if line != str(os.getpid())]
                users.write_text("".join(f"{line}\n" for line in left))
                if not left:
                    (folder / "url").unlink()
                    drop_database(template)

    @contextmanager
    def _lock(self, name: str) -> Iterator[Path]:
        """Yield the folder of a template, for one process at a time."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def drop_database(url: str) -> None:
    """Drop a database of the PostgreSQL server for tests, and end its connections."""
    _execute(f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)')


def _execute(*statements: str, url: str | None = None) -> None:
    """Execute statements on the PostgreSQL server for tests, outside of a transaction."""
    if url is None:
        # A missing server says at once that it accepts no connections; one that drops databases is slow.
        patient = server_url().update_query_dict({"connect_timeout": "60"})
        url = patient.render_as_string(hide_password=False)
    server = build_engine(url, pool_size=1).execution_options(isolation_level="AUTOCOMMIT")
    try:
        with server.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        server.dispose()
