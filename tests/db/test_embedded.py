"""The embedded PostgreSQL: who shares it, who may use it, and how it survives kills and unusable folders."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from sqlalchemy import Engine, text

from db.embedded import (
    MAX_SOCKET_BYTES,
    Cluster,
    EmbeddedDatabaseError,
    copy_cluster,
    installation,
    remove_cluster,
    stop_cluster,
    supervisor,
    use_cluster,
)
from db.engine import build_engine
from tests.support.concurrency import wait_for
from tests.support.embedded import is_process_running, wait_until_stopped
from tests.support.forks import start_fork, wait_for_fork

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
"""How long a process may take on a busy machine."""

is_root = os.geteuid() == 0
only_root = pytest.mark.skipif(not is_root, reason="only root can start a process of another user")


class UserProcess:
    """Another process that uses a cluster. It writes its id to a row."""

    def __init__(self, folder: Path) -> None:
        self._reading, writing = os.pipe()
        self.pid = start_fork(lambda: self._use(folder, writing))
        os.close(writing)
        self._is_running = True

    def _use(self, folder: Path, ready: int) -> None:
        with use_cluster(folder) as cluster:
            engine = connect(cluster)
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO notes VALUES (:id)"), {"id": os.getpid()})
            # Not before, because PostgreSQL would inherit it.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            os.write(ready, b"ready")
            signal.sigwait([signal.SIGTERM])

    def wait_until_ready(self) -> None:
        assert os.read(self._reading, 5) == b"ready"

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._is_running:
            os.kill(self.pid, number)
            wait_for_fork(self.pid)
            os.close(self._reading)
            self._is_running = False


class Created(NamedTuple):
    """A cluster for all tests that leave it as it was."""

    folder: Path
    identities: list[object]
    """What each of the starts has read that created it together."""


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Created:
    """Create a cluster by several starts, at a long path and after a creation that was killed."""
    folder = tmp_path_factory.mktemp("shared") / ("long" * 30) / ("folder" * 20) / "postgresql"
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    together = threading.Barrier(4)

    def read_identity() -> object:
        with use_cluster(folder, is_durable=False, release="0.3.0") as cluster:
            engine = connect(cluster)
            with engine.begin() as connection:
                identity = connection.scalar(text("SELECT system_identifier FROM pg_control_system()"))
                connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
                connection.execute(text("CREATE TABLE IF NOT EXISTS notes (process integer)"))
            engine.dispose()
            together.wait(SECONDS)
            return identity

    # Each has its own open file, as processes have.
    with ThreadPoolExecutor(4) as threads:
        return Created(
            folder, [future.result() for future in [threads.submit(read_identity) for _ in range(4)]]
        )


@pytest.fixture
def folder(created: Created) -> Iterator[Path]:
    """Yield the folder of a cluster that does not run. What runs at the end is stopped."""
    wait_until_stopped(created.folder)
    yield created.folder
    stop_cluster(created.folder)


@pytest.fixture
def start() -> Iterator[Callable[[Path], UserProcess]]:
    """Yield a function that starts a process which uses a cluster; all are ended at the end."""
    users: list[UserProcess] = []

    def start_user(folder: Path) -> UserProcess:
        users.append(UserProcess(folder))
        return users[-1]

    yield start_user
    for user in users:
        user.end(signal.SIGKILL)


def connect(cluster: Cluster) -> Engine:
    return build_engine(cluster.url, pool_size=1)


def has_note(folder: Path, user: UserProcess) -> bool:
    """Return whether the row of a process is there."""
    with use_cluster(folder) as cluster:
        engine = connect(cluster)
        with engine.connect() as connection:
            rows = connection.scalars(text("SELECT process FROM notes WHERE process = :id"), {"id": user.pid})
            found = rows.all()
        engine.dispose()
    return found == [user.pid]


def kill(pid: int) -> None:
    """Kill a process, and return when it is dead: PostgreSQL lets clients in until then."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_process_running(pid), SECONDS)


def postmaster_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def test_the_login_of_a_new_cluster_has_the_rights_of_production(folder: Path) -> None:
    with use_cluster(folder) as cluster:
        engine = connect(cluster)
        with engine.connect() as connection:
            roles = connection.execute(
                text(
                    "SELECT rolname, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolreplication "
                    "FROM pg_roles WHERE rolname LIKE 'sartiq%' ORDER BY rolname"
                )
            ).all()
            member = "SELECT pg_has_role('sartiq', 'sartiq_app', 'MEMBER')"
            is_member = connection.scalar(text(member))
            setting = "SELECT current_setting('server_encoding'), current_setting('listen_addresses')"
            settings = connection.execute(text(setting)).one()
            words = connection.scalars(
                text("SELECT word FROM unnest(ARRAY['é', 'b', 'a', 'B']) AS word ORDER BY word")
            ).all()
        engine.dispose()
    assert [tuple(row) for row in roles] == [
        ("sartiq", True, False, False, False, False),
        ("sartiq_app", False, False, False, False, False),
        ("sartiq_system", False, False, False, False, False),
    ]
    assert is_member
    assert tuple(settings) == ("UTF8", "")
    assert words == ["B", "a", "b", "é"]  # by code points


def test_processes_share_a_cluster_which_ends_with_the_last_of_them(
    folder: Path, start: Callable[[Path], UserProcess]
) -> None:
    first, second = start(folder), start(folder)
    first.wait_until_ready()
    second.wait_until_ready()
    pid = postmaster_pid(folder)
    first.end()
    time.sleep(2 * supervisor.USERS_POLL_SECONDS)
    assert postmaster_pid(folder) == pid
    socket_folder = Path((folder / "socket").read_text())
    second.end()
    wait_until_stopped(folder)
    assert not (folder / "data" / "postmaster.pid").exists()
    assert not socket_folder.exists()


def test_several_starts_at_the_same_moment_make_one_cluster(created: Created) -> None:
    assert len(created.identities) == 4
    assert len(set(created.identities)) == 1


def test_a_creation_that_was_killed_leaves_nothing_that_the_next_start_uses(created: Created) -> None:
    assert (created.folder / "data" / "global").is_dir()
    assert not (created.folder / "data.new").exists()


def test_a_long_path_of_the_folder_does_not_matter(folder: Path) -> None:
    assert len(str(folder)) > 240
    with use_cluster(folder) as cluster:
        assert len(str(cluster.socket_folder)) < MAX_SOCKET_BYTES


@pytest.mark.parametrize("killed", ["user", "postgres", "supervisor", "all"])
def test_the_next_start_recovers_from_kill_9(
    folder: Path, start: Callable[[Path], UserProcess], killed: str
) -> None:
    user = start(folder)
    user.wait_until_ready()
    pids = {
        "user": user.pid,
        "postgres": postmaster_pid(folder),
        "supervisor": int((folder / "supervisor.lock").read_text()),
    }
    for name, pid in pids.items():
        if killed in (name, "all"):
            kill(pid)
    if killed == "user":
        wait_until_stopped(folder)
    assert has_note(folder, user)


def test_a_killed_postgresql_starts_again_for_the_processes_that_use_it(folder: Path) -> None:
    with use_cluster(folder) as cluster:
        engine = connect(cluster)
        engine.connect().close()
        engine.dispose()
        kill(postmaster_pid(folder))
        with use_cluster(folder) as again:
            engine = connect(again)
            engine.connect().close()
            engine.dispose()


def test_a_copy_has_the_rows_and_is_removed_also_if_its_supervisor_was_killed(
    folder: Path, tmp_path: Path, start: Callable[[Path], UserProcess]
) -> None:
    user = start(folder)
    user.wait_until_ready()
    user.end()
    wait_until_stopped(folder)
    copy = tmp_path / "copy"
    copy_cluster(folder, copy)
    assert (copy / "data").stat().st_uid == (folder / "data").stat().st_uid
    with use_cluster(copy) as cluster:
        assert has_note(copy, user)
        postgres = postmaster_pid(copy)
        os.kill(int((copy / "supervisor.lock").read_text()), signal.SIGKILL)
        remove_cluster(copy)
        assert not is_process_running(postgres)
        assert not copy.exists()
        assert not cluster.socket_folder.exists()
    assert has_note(folder, user)


def test_a_number_in_the_file_of_a_killed_postgresql_that_is_used_again_does_no_harm(folder: Path) -> None:
    with use_cluster(folder):
        pass
    wait_until_stopped(folder)
    (folder / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{folder}\n1\n5432\n\n\n\nready\n")
    with use_cluster(folder) as cluster:
        assert postmaster_pid(folder) != os.getpid()
        connect(cluster).dispose()


def test_a_variable_of_another_postgresql_does_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGHOST": "nowhere", "PGUSER": "nobody", "PGDATA": "/nowhere"}.items():
        monkeypatch.setenv(name, value)
    with use_cluster(folder) as cluster:
        engine = connect(cluster)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_user")) == "sartiq"
        engine.dispose()


def run_as_other_user(function: Callable[[], object], user_id: int) -> str:
    """Call a function in a process of another user; return the message of its error, or an empty string."""
    reading, writing = os.pipe()

    def run() -> None:
        os.setgroups([])
        os.setgid(user_id)
        os.setuid(user_id)
        try:
            function()
        except (OSError, psycopg.Error) as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())

    child = start_fork(run)
    os.close(writing)
    with open(reading) as pipe:
        message = pipe.read()
    assert wait_for_fork(child) == 0
    return message


@only_root
@pytest.mark.parametrize("user_id", [installation.NOBODY, 64_321])
def test_another_user_of_the_machine_can_neither_open_nor_sign_in(folder: Path, user_id: int) -> None:
    with use_cluster(folder) as cluster:
        path = cluster.socket_folder / ".s.PGSQL.5432"

        def open_socket() -> None:
            socket.socket(socket.AF_UNIX).connect(str(path))

        def sign_in() -> None:
            psycopg.connect(host=str(cluster.socket_folder), user="sartiq", dbname="sartiq")

        assert run_as_other_user(open_socket, user_id) == "PermissionError: [Errno 13] Permission denied"
        assert run_as_other_user(lambda: os.listdir(folder / "data"), user_id).startswith("PermissionError")
        # Also where an operator has opened the folder of the socket.
        cluster.socket_folder.chmod(0o755)
        path.chmod(0o777)
        assert "Peer authentication failed" in run_as_other_user(sign_in, user_id)


@only_root
def test_postgresql_runs_with_a_user_id_that_no_account_has(folder: Path) -> None:
    with use_cluster(folder):
        owner = Path(f"/proc/{postmaster_pid(folder)}").stat().st_uid
    assert owner in installation.UNUSED_IDS
    assert installation.find_account_name(owner) is None


@only_root
def test_programs_that_only_root_can_read_are_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = installation.find_binaries().parent.parent
    private = tmp_path / "packages"
    private.mkdir(mode=0o700)
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(
                source, private / source.name, ignore=shutil.ignore_patterns("include"), symlinks=True
            )
    binaries = private / package.name / "pginstall" / "bin"
    monkeypatch.setattr("db.embedded.find_binaries", lambda: binaries)
    with use_cluster(folder):
        program = Path(f"/proc/{postmaster_pid(folder)}/exe").readlink()
    assert not program.is_relative_to(tmp_path)
    assert program.is_file()
    shutil.rmtree(program.parents[3])


def reject(folder: Path) -> str:
    with pytest.raises(EmbeddedDatabaseError) as caught, use_cluster(folder):
        pass
    return str(caught.value)


@pytest.fixture
def changed_file(folder: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield a function that changes a file of the cluster until the end of the test."""
    with ExitStack() as stack:

        def change(name: str, content: bytes) -> None:
            path = folder / "data" / name
            stack.callback(path.write_bytes, path.read_bytes())
            path.write_bytes(content)

        yield change


def test_files_of_another_version_are_rejected_with_the_release_that_reads_them(
    folder: Path, changed_file: Callable[[str, bytes], None]
) -> None:
    changed_file("PG_VERSION", b"17\n")
    assert reject(folder) == (
        f"The database in {folder} is of PostgreSQL 17, and this release has PostgreSQL 18. Save it by "
        "`make backup` of release 0.3.0, and restore it by `make restore` of this one in an empty DATA_DIR"
    )


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "postgresql"
    assert reject(folder) == (
        f"The database in {folder} cannot be used: Not a directory ({folder}). Or set DATABASE_URL to "
        "another PostgreSQL server"
    )


def test_a_cluster_whose_socket_is_in_another_container_is_named(folder: Path) -> None:
    with use_cluster(folder) as cluster:
        moved = cluster.socket_folder.rename(f"{cluster.socket_folder}-moved")
        message = reject(folder)
        moved.rename(cluster.socket_folder)
    assert message == (
        f"The database in {folder} runs in another container, and its socket is not here. Set DATABASE_URL "
        "to a PostgreSQL server that both can reach"
    )


def test_a_cluster_that_lets_no_client_in_is_reported_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.embedded.REJECTION_SECONDS", 0.1)
    with use_cluster(folder) as cluster:
        path = cluster.socket_folder / ".s.PGSQL.5432"
        moved = path.rename(path.with_name("moved"))
        message = reject(folder)
        moved.rename(path)
    assert message.startswith(f"The database in {folder} lets no client in: ")
    assert "No such file or directory" in message
    assert len(message.splitlines()) == 1


def test_damaged_files_are_reported_with_the_reason_of_postgresql(
    folder: Path, changed_file: Callable[[str, bytes], None]
) -> None:
    changed_file("global/pg_control", b"")
    message = reject(folder)
    assert message.startswith(f"PostgreSQL does not start in {folder}: could not read file")
    assert message.endswith(
        f"{folder / 'postgresql.log'} has all messages. Or set DATABASE_URL to another PostgreSQL server"
    )


def test_a_platform_without_the_package_is_told_to_set_database_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda _: None)
    assert reject(tmp_path / "postgresql") == (
        "The package with PostgreSQL is not installed: production installs none, and some platforms have "
        "none. Install requirements-local.txt, or set DATABASE_URL to the URL of a PostgreSQL server"
    )


def test_the_command_stops_a_cluster_that_is_in_use(
    folder: Path, start: Callable[[Path], UserProcess]
) -> None:
    user = start(folder)
    user.wait_until_ready()
    command = [sys.executable, ROOT / "db" / "embedded" / "supervisor.py", "stop", folder]
    subprocess.run(command, check=True, timeout=SECONDS)
    assert not (folder / "data" / "postmaster.pid").exists()
    assert has_note(folder, user)
