"""Run a PostgreSQL server of this project's own in a folder, for all processes that use the folder.

The server listens on a Unix socket in a private folder, and lets only the user of this process sign in. Its
login, roles and policies are those of production. The module knows no model and no setting.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db.embedded import supervisor
from db.embedded.installation import (
    SUPERUSER,
    USE_OTHER,
    EmbeddedDatabaseError,
    PostgreSQLNotInstalled,
    change_owner,
    choose_account,
    copy_files,
    create_files,
    find_account_name,
    find_binaries,
    find_reason,
    make_reachable,
    read_versions,
)
from db.embedded.supervisor import DATA, SOCKET, USERS
from db.engine import build_engine
from db.rls.setup import prepare_roles

__all__ = [
    "LOGIN", "SUPERUSER", "Cluster", "EmbeddedDatabaseError", "PostgreSQLNotInstalled", "copy_cluster",
    "find_binaries", "remove_cluster", "stop_cluster", "use_cluster",
]  # fmt: skip

LOGIN = "sartiq"
"""The login of servers and workers, and the name of its database. It is no superuser."""
MAX_SOCKET_BYTES = 100
"""The longest path of a socket. Linux allows 107 bytes, macOS 103."""

REJECTION_SECONDS = 30
"""How long a start waits for a PostgreSQL that says that it accepts connections."""

_START, _LOG, _RELEASE = "start.lock", "postgresql.log", "release"

copy_cluster = copy_files
remove_cluster, stop_cluster = supervisor.remove, supervisor.stop


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    socket_folder: Path

    @property
    def url(self) -> str:
        """The URL of the database `sartiq`, with the login that owns its tables."""
        return self.url_of(LOGIN)

    @property
    def superuser_url(self) -> str:
        """The URL of the database `postgres`, with the superuser."""
        return self.url_of("postgres", SUPERUSER)

    def url_of(self, database: str, login: str = LOGIN) -> str:
        """Return the URL of a database for a login."""
        # The port names the file of the socket. It is explicit because libpq reads PGPORT.
        query = urlencode({"host": str(self.socket_folder), "port": 5432}, safe="/")
        return f"postgresql+psycopg://{login}@/{database}?{query}"


@contextmanager
def use_cluster(folder: Path, *, is_durable: bool = True, release: str = "") -> Iterator[Cluster]:
    """Yield the cluster of a folder. It runs until the last process has left this block or has ended.

    The first user creates it. Several processes may call this at the same moment.

    Args:
        folder: The folder of the cluster; its path may have any length. It is created with mode 0700.
        is_durable: Whether commits survive a crash of the machine, if this call starts PostgreSQL.
        release: The version of the product, for the message of a later release that cannot read the files.

    Raises:
        EmbeddedDatabaseError: PostgreSQL is not installed or does not start, or the folder cannot be written
            or belongs to another user or another version of PostgreSQL.
    """
    binaries = find_binaries()
    folder = folder.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        users = (folder / USERS).open("a")
    except OSError as error:
        raise _explain(folder, error) from error
    with users:
        # Waits while the supervisor stops PostgreSQL behind its last user.
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            with (folder / _START).open("a") as start:
                fcntl.flock(start, fcntl.LOCK_EX)
                cluster = _connect(folder) or _start(folder, binaries, is_durable, release)
        except OSError as error:
            raise _explain(folder, error) from error
        yield cluster


def _explain(folder: Path, error: OSError) -> EmbeddedDatabaseError:
    return EmbeddedDatabaseError(
        f"The database in {folder} cannot be used: {error.strerror} ({error.filename}). {USE_OTHER}"
    )


def _connect(folder: Path) -> Cluster | None:
    """Return the cluster as soon as PostgreSQL accepts connections; None if no supervisor runs.

    Raises:
        EmbeddedDatabaseError: Another container runs it, it lets no client in, or it was running and does not
            start again.
    """
    deadline = None
    while supervisor.is_running(folder):
        # The process itself may be invisible: it can run in another namespace.
        if supervisor.find_ready(folder) is not None:
            cluster = Cluster(Path((folder / SOCKET).read_text()))
            if not cluster.socket_folder.is_dir():
                raise EmbeddedDatabaseError(
                    f"The database in {folder} runs in another container, and its socket is not here. Set "
                    "DATABASE_URL to a PostgreSQL server that both can reach"
                )
            rejection = _find_rejection(cluster)
            if rejection is None:
                return cluster
            # A server that was just killed or stopped lets no client in for a moment.
            deadline = deadline or time.monotonic() + REJECTION_SECONDS
            if time.monotonic() > deadline:
                raise EmbeddedDatabaseError(f"The database in {folder} lets no client in: {rejection}")
        if supervisor.is_failing(folder):
            raise _explain_failure(folder)
        time.sleep(supervisor.POLL_SECONDS)
    return None


def _find_rejection(cluster: Cluster) -> str | None:
    """Return why a client cannot sign in, None if it can."""
    engine = build_engine(cluster.superuser_url, pool_size=1)
    try:
        engine.connect().close()
    except OperationalError as error:
        return str(error.orig).partition("\n")[0]
    finally:
        engine.dispose()
    return None


def _start(folder: Path, binaries: Path, is_durable: bool, release: str) -> Cluster:
    """Create the cluster if there is none, start it and prepare its database."""
    account = choose_account(folder)
    binaries = make_reachable(binaries, account)
    if (folder / DATA).exists():
        supervisor.end_leftovers(folder / DATA)
        _require_version(folder, binaries)
    else:
        create_files(folder, binaries, account, is_durable=is_durable)
    _prepare_socket_folder(folder, account)
    _write_access_rules(folder / DATA, account)
    supervisor.start(folder, binaries, folder / _LOG, is_durable=is_durable)
    cluster = _connect(folder)
    if cluster is None:
        raise _explain_failure(folder)
    _prepare_database(cluster)
    if release:
        (folder / _RELEASE).write_text(release)
    return cluster


def _require_version(folder: Path, binaries: Path) -> None:
    """Check that the programs can read the files.

    Raises:
        EmbeddedDatabaseError: Another major version wrote them.
    """
    version, installed = read_versions(folder, binaries)
    if version == installed:
        return
    file = folder / _RELEASE
    release = f"release {file.read_text()}" if file.exists() else "the release that you used before"
    raise EmbeddedDatabaseError(
        f"The database in {folder} is of PostgreSQL {version}, and this release has PostgreSQL {installed}. "
        f"Save it by `make backup` of {release}, and restore it by `make restore` of this one in an empty "
        "DATA_DIR"
    )


def _prepare_socket_folder(folder: Path, account: int) -> None:
    """Create the private folder of the socket, if possible at its former path, which running clients know."""
    file = folder / SOCKET
    if file.exists():
        former = Path(file.read_text())
        with suppress(OSError):
            former.mkdir(mode=0o700)
            change_owner(former, account)
        with suppress(OSError):
            status = former.lstat()
            if status.st_uid == account and status.st_mode & 0o170777 == 0o040700:
                return
    # The name is random, because other users may create files in the parent.
    new = Path(tempfile.mkdtemp(prefix="sartiq-"))
    if len(os.fsencode(new / ".s.PGSQL.5432.lock")) > MAX_SOCKET_BYTES:
        new.rmdir()
        new = Path(tempfile.mkdtemp(prefix="sartiq-", dir="/tmp"))
    change_owner(new, account)
    file.write_text(str(new))


def _write_access_rules(data: Path, account: int) -> None:
    """Let only the user of this process sign in, with either login and without a password."""
    name = find_account_name(os.geteuid())
    if name is None:
        raise EmbeddedDatabaseError(
            f"The user id {os.geteuid()} has no account, which is needed. {USE_OTHER}"
        )
    rules = {
        "pg_hba.conf": "local all all peer map=owner\n",
        "pg_ident.conf": f'owner "{name}" {LOGIN}\nowner "{name}" {SUPERUSER}\n',
    }
    for file_name, content in rules.items():
        (data / file_name).write_text(content)
        change_owner(data / file_name, account)


def _prepare_database(cluster: Cluster) -> None:
    """Create the login, the roles of production and the database, as far as they are missing."""
    engine = build_engine(cluster.superuser_url, pool_size=1)
    try:
        with engine.begin() as connection:
            if connection.scalar(text("SELECT to_regrole(:name)"), {"name": LOGIN}) is None:
                connection.execute(text(f"CREATE ROLE {LOGIN} LOGIN CREATEDB NOSUPERUSER NOBYPASSRLS"))
            prepare_roles(connection, LOGIN)
        # PostgreSQL creates no database in a transaction.
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            exists = text("SELECT 1 FROM pg_database WHERE datname = :name")
            if connection.scalar(exists, {"name": LOGIN}) is None:
                connection.execute(text(f"CREATE DATABASE {LOGIN} OWNER {LOGIN}"))
    finally:
        engine.dispose()


def _explain_failure(folder: Path) -> EmbeddedDatabaseError:
    log = folder / _LOG
    reason = find_reason(log.read_text(errors="replace"))
    return EmbeddedDatabaseError(
        f"PostgreSQL does not start in {folder}: {reason}. {log} has all messages. {USE_OTHER}"
    )
