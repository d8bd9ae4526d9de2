"""The embedded PostgreSQL of an ordinary user in namespaces: on a full or read-only disk, or shared."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from db.embedded import supervisor
from tests.support.concurrency import wait_for
from tests.support.embedded import wait_until_stopped
from tests.support.servers.small_disk import require_mounts

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
"""How long PostgreSQL may take on a busy machine."""
PROGRAM = """
import sys
from pathlib import Path
from db.embedded import EmbeddedDatabaseError, use_cluster
try:
    with use_cluster(Path(sys.argv[1])) as cluster:
        print(cluster.url.replace("+psycopg", ""), flush=True)
        sys.stdin.read()
except EmbeddedDatabaseError as error:
    sys.exit(str(error))
"""
RESERVE = 40 << 20
"""The size of the file that a test deletes to free space. Recovery writes up to two WAL segments of 16 MB."""


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line of a process; kill the process if that takes too long."""
    assert process.stdout is not None
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        return process.stdout.readline().strip()
    finally:
        timer.cancel()


def end(process: subprocess.Popen[str]) -> str:
    """Close the input of a process and return its errors; kill the process if its end takes too long."""
    try:
        _, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return errors


class Disk:
    """A file system in memory, in a namespace of its own, whose root is no user that PostgreSQL knows.

    Args:
        folder: The folder at which it is mounted in the namespace.
        size: Its size, as `mount` reads it.
    """

    def __init__(self, folder: Path, size: str) -> None:
        self._folder = folder
        mount = f'mount -t tmpfs -o size={size},mode=0777 tmpfs "$0" && echo mounted && exec cat'
        self.process = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", mount, folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert read_line(self.process) == "mounted"

    @property
    def path(self) -> Path:
        """The root of the file system, seen from this process."""
        return Path(f"/proc/{self.process.pid}/root{self._folder}")

    def remount(self, options: str) -> None:
        """Change the options of the file system, as soon as no process that ends has a file open."""
        command = [*self._enter(), "mount", "-o", f"remount,{options}", self._folder]
        deadline = time.monotonic() + SECONDS
        while (
            result := subprocess.run(command, capture_output=True, text=True, check=False)
        ).returncode != 0:
            assert time.monotonic() < deadline, result.stderr
            time.sleep(0.1)

    def start(self) -> subprocess.Popen[str]:
        """Start the embedded database on the disk, with the user id of `nobody`."""
        user = ["unshare", "--user", "--map-user=65534"]
        return subprocess.Popen(
            [*self._enter(), *user, sys.executable, "-c", PROGRAM, self._folder / "postgresql"],
            # The working folder in the namespace is its root.
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _enter(self) -> list[str]:
        return ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", str(self.process.pid)]

    def fail(self) -> str:
        """Start the database, which must not start, and return what it says."""
        message = end(process := self.start())
        assert process.returncode == 1, message
        return message

    @contextmanager
    def run(self) -> Iterator[str]:
        """Run the database within the block and yield its URL."""
        process = self.start()
        if not (url := read_line(process)):
            pytest.fail(end(process))
        try:
            yield url
        finally:
            end(process)


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    require_mounts()
    disk = Disk(tmp_path, request.param)
    yield disk
    end(disk.process)


@pytest.mark.parametrize("disk", ["20m"], indirect=True)
def test_a_disk_that_is_too_small_is_named_and_nothing_remains(disk: Disk) -> None:
    message = disk.fail()

    assert "No database can be created" in message
    assert "No space left on device" in message
    assert len(message.splitlines()) == 1
    assert not [path for path in disk.path.rglob("*") if path.is_file() and path.stat().st_size]
    disk.remount("size=200m")
    with disk.run() as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("disk", ["200m"], indirect=True)
def test_a_process_that_cannot_see_the_process_of_postgresql_uses_it(disk: Disk) -> None:
    # Each has a user namespace of its own, as containers have. It waited forever.
    with disk.run() as first, disk.run() as second:
        assert first == second
        with psycopg.connect(second) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("disk", ["200m"], indirect=True)
def test_a_read_only_disk_is_named_and_loses_nothing(disk: Disk) -> None:
    with disk.run() as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 1 AS id")
    wait_until_stopped(disk.path / "postgresql")
    disk.remount("ro")

    message = disk.fail()

    assert "Read-only file system" in message
    assert len(message.splitlines()) == 1
    disk.remount("rw")
    with disk.run() as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT id FROM notes").fetchall() == [(1,)]


@pytest.mark.parametrize("disk", ["150m"], indirect=True)
def test_a_database_that_filled_its_disk_comes_back_with_all_rows_when_there_is_room(disk: Disk) -> None:
    reserve = disk.path / "reserve"
    reserve.write_bytes(bytes(RESERVE))
    with disk.run() as url:
        written = write_until_the_disk_is_full(url)
        # The supervisor has tried in vain to start PostgreSQL again.
        wait_for(lambda: supervisor.is_failing(disk.path / "postgresql"), SECONDS)
        # Another process that starts the database gets the reason at once.
        assert "No space left on device" in disk.fail()

        reserve.unlink()

        assert count_rows(url) == written
    with disk.run() as url:
        assert count_rows(url) == written


def write_until_the_disk_is_full(url: str) -> int:
    """Return the number of rows that were committed."""
    written = 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE rows (filling text)")
        with pytest.raises(psycopg.Error, match="No space left on device"):
            while True:
                connection.execute(
                    "INSERT INTO rows SELECT string_agg(md5(n::text), '') FROM generate_series(1, 9999) n"
                )
                written += 1
    return written


def count_rows(url: str) -> int:
    """Return the number of rows as soon as the database answers."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with psycopg.connect(url) as connection:
                row = connection.execute("SELECT count(*) FROM rows").fetchone()
                assert row is not None
                return int(row[0])
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
