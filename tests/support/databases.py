"""Create temporary databases: an SQLite file, or a database on the PostgreSQL server for tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import OperationalError

from db.engine import build_engine
from db.migrations import upgrade
from tests.support.requirements import skip_or_fail

DEFAULT_ADMIN_URL = "postgresql+psycopg://postgres@127.0.0.1/postgres"

on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True, scope="session")
"""Run a test on PostgreSQL only, for features that SQLite lacks."""

postgresql_is_slow = pytest.mark.parametrize(
    "database_kind",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow("only its SQL differs from SQLite"))],
    indirect=True,
    scope="session",
)
"""Run a test that commits on PostgreSQL with the slow tests only: no lock and no other process matters."""


def admin_url() -> str:
    """Return the URL of a database on the PostgreSQL server for tests, whose role may create databases."""
    # A missing server refuses connections at once; one that drops databases may take seconds.
    url = _postgresql_url().update_query_dict({"connect_timeout": "60"})
    return url.render_as_string(hide_password=False)


def _postgresql_url() -> URL:
    return make_url(os.environ.get("TEST_POSTGRESQL_URL", DEFAULT_ADMIN_URL))


@contextmanager
def create_database(
    kind: str, folder: Path, template: str | None = None, dropping: LateDrops | None = None
) -> Iterator[str]:
    """Yield the URL of a new database, and drop it afterwards.

    Args:
        kind: "sqlite" or "postgresql".
        folder: Where the file of an SQLite database is created.
        template: The URL of a database to copy. It must have no open connections.
        dropping: Drops the database later. Its commits do not wait for the disk.

    Raises:
        OperationalError: No PostgreSQL server accepts TEST_POSTGRESQL_URL.
    """
    url = _create_database(kind, folder, template, waits_for_disk=dropping is None)
    try:
        yield url
    finally:
        if kind != "sqlite":
            (dropping.submit if dropping is not None else _drop_database)(str(make_url(url).database))


def _create_database(kind: str, folder: Path, template: str | None, *, waits_for_disk: bool) -> str:
    if kind == "sqlite":
        path = folder / "test.db"
        if template is not None:
            shutil.copyfile(str(make_url(template).database), path)
        return f"sqlite:///{path}"
    # A random name, so that parallel runs do not collide.
    name = f"test_{uuid.uuid4().hex}"
    source = "template1" if template is None else make_url(template).database
    statements = [f'CREATE DATABASE "{name}" TEMPLATE "{source}"']
    if not waits_for_disk:
        statements.append(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    _execute(*statements)
    return _postgresql_url().set(database=name).render_as_string(hide_password=False)


class DatabaseFactory:
    """Creates the databases for the tests of one process, most of them as copies of a template.

    Copies are made faster than migrations run. The first process that needs a template creates it, and the
    last one that ends drops it.

    Args:
        folder: The folder of the templates, which all processes of the run share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._drops = folder, LateDrops()
        self._templates: dict[str, str] = {}

    def get_template(self, kind: str) -> str:
        """Return the URL of a database with the newest schema. No process connects to it."""
        if kind not in self._templates:
            with self._lock(kind) as folder:
                url, users = folder / "url", folder / "users"
                if not url.exists():
                    url.write_text(self._create_template(kind, folder), "utf-8")
                with users.open("a") as file:
                    file.write(f"{os.getpid()}\n")
                self._templates[kind] = url.read_text("utf-8")
        return self._templates[kind]

    def _create_template(self, kind: str, folder: Path) -> str:
        with _skip_without_postgresql():
            url = _create_database(kind, folder, None, waits_for_disk=False)
        upgrade(url)
        return url

    @contextmanager
    def create(self, kind: str, folder: Path, template: str | None = None) -> Iterator[str]:
        """Yield the URL of a new database.

        Without PostgreSQL, skip the test, or fail it if `CI=true`.
        """
        with ExitStack() as stack:
            with _skip_without_postgresql():
                url = stack.enter_context(create_database(kind, folder, template, self._drops))
            yield url

    def close(self) -> None:
        """Drop all databases, and the templates that no other process uses."""
        for kind, template in self._templates.items():
            with self._lock(kind) as folder:
                users = folder / "users"
                left = [line for line in users.read_text().splitlines() if line != str(os.getpid())]
                users.write_text("".join(f"{line}\n" for line in left))
                if not left:
                    (folder / "url").unlink()
                    if kind != "sqlite":
                        self._drops.submit(str(make_url(template).database))
        self._drops.finish()

    @contextmanager
    def _lock(self, kind: str) -> Iterator[Path]:
        """Yield the folder of a template, for one process at a time."""
        folder = self._folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


@contextmanager
def _skip_without_postgresql() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        skip_or_fail(f"a PostgreSQL server at TEST_POSTGRESQL_URL (make services installs one): {error.orig}")


class LateDrops:
    """Drops databases at the end of the run, in threads.

    A database has a thousand files. For a minute after their deletion, ext4 skips their inodes one by one for
    each new file: creating the next database takes half a second of CPU instead of a twentieth.
    PostgreSQL writes a checkpoint for each drop. Concurrent ones share it.
    """

    MAX_KEPT = 50
    """How many databases of 13 MB a process keeps. It drops the oldest one of more."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="drop-database")
        self._kept: deque[str] = deque()
        self._futures: list[Future[None]] = []

    def submit(self, name: str) -> None:
        """Drop a database of the PostgreSQL server for tests later."""
        self._kept.append(name)
        while len(self._kept) > self.MAX_KEPT:
            self._drop_oldest()

    def finish(self) -> None:
        """Drop all databases, and raise the first error."""
        while self._kept:
            self._drop_oldest()
        self._threads.shutdown()
        for future in self._futures:
            future.result()

    def _drop_oldest(self) -> None:
        self._futures.append(self._threads.submit(_drop_database, self._kept.popleft()))


def _drop_database(name: str) -> None:
    _execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _execute(*statements: str) -> None:
    """Execute statements on the PostgreSQL server for tests, outside of a transaction."""
    server = build_engine(admin_url(), pool_size=1).execution_options(isolation_level="AUTOCOMMIT")
    try:
        with server.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        server.dispose()
