"""Processes to break: a Redis and a PostgreSQL server, Celery workers and beat, on free ports.

Starts, stops, pauses and kills them. Knows nothing of the work that they do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis

from db.embedded import EmbeddedDatabaseError
from db.embedded.installation import choose_account, create_files, find_binaries, make_reachable
from db.embedded.supervisor import as_account, path_for
from tools.servers.server import ROOT, SECRET_KEY, free_port, stop

START_TIMEOUT_SECONDS = 60
LOG_LINES = 40


class DependencyMissing(Exception):
    """A program that the tests need is not installed; the message names it."""


def wait_until(
    condition: Callable[[], object],
    description: str,
    seconds: float = START_TIMEOUT_SECONDS,
    state: Callable[[], object] | None = None,
) -> None:
    """Return as soon as a condition holds.

    Args:
        condition: Called until its result is true.
        description: What is waited for.
        seconds: The longest wait.
        state: Called on failure; the message includes its result.

    Raises:
        AssertionError: The condition does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    reached = f" ({state()})" if state else ""
    raise AssertionError(f"after {seconds:.0f} s still not: {description}{reached}")


@contextlib.contextmanager
def report_logs(folder: Path) -> Iterator[None]:
    """Add the last lines of every log below a folder to the exception that ends the block."""
    try:
        yield
    except BaseException as error:
        for log in sorted(folder.rglob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            error.add_note("\n".join([f"last of {len(lines)} lines of {log}:", *lines[-LOG_LINES:]]))
        raise


@dataclass
class RedisServer:
    """A Redis server that stores nothing on disk."""

    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
        )
        wait_until(self.is_responding, "Redis responds")

    def is_responding(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            return bool(client.ping())
        return False

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)

    def count_messages(self, name: str) -> int:
        """Return how many messages are in a queue."""
        with redis.Redis(port=self.port) as client:
            return int(client.llen(name))

    def flush(self) -> None:
        """Delete every message, queue and binding."""
        with redis.Redis(port=self.port) as client:
            client.flushall()


@contextlib.contextmanager
def run_redis() -> Iterator[RedisServer]:
    """Run a Redis server within the block.

    Raises:
        DependencyMissing: Redis is not installed.
    """
    if shutil.which("redis-server") is None:
        raise DependencyMissing("redis-server (make services installs it)")
    broker = RedisServer(free_port())
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL server with all its files in one folder."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def process_id(self) -> int:
        """The process id of the server."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, in the folder of the data.

        Raises:
            AssertionError: It fails; the message holds its output.
        """
        data = self.folder / "data"
        # A file, not a pipe: the server that `pg_ctl` starts would keep the pipe open.
        with (self.folder / f"{program}.log").open("w+") as output:
            status = subprocess.run(
                [self.programs / program, *arguments],
                cwd=data,
                env={**os.environ, "LC_ALL": "C"},
                stdout=output,
                stderr=output,
                **as_account(data.stat().st_uid),
            ).returncode
            output.seek(0)
            assert status == 0, f"{program} failed with status {status}: {output.read()}"

    def control(self, action: str, *arguments: str) -> None:
        data = self.folder / "data"
        path = path_for(data, data.stat().st_uid)
        self.run("pg_ctl", "-D", path, "-l", "postgresql.log", "-w", *arguments, action)

    def restart(self) -> None:
        """Crash and start again: connections break, and the server replays its write-ahead log."""
        self.control("restart", "-m", "immediate")


@contextlib.contextmanager
def run_postgres(folder: Path, **settings: str) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server on a port within the block, with the programs of the embedded one.

    It trusts each client on this machine.

    Args:
        folder: The folder for its files. It must not exist.
        settings: Settings of the server.

    Raises:
        DependencyMissing: PostgreSQL is not installed.
    """
    folder.mkdir(parents=True)
    account = choose_account(folder)
    try:
        programs = make_reachable(find_binaries(), account)
    except EmbeddedDatabaseError as error:
        raise DependencyMissing(str(error)) from error
    cluster = PostgresServer(programs, folder, free_port())
    create_files(folder, programs, account, is_durable=False)
    rules = folder / "data" / "pg_hba.conf"
    rules.write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")
    # The socket lies in the data folder, whose path may be too long for one.
    all_settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ".", **settings}
    options = " ".join(f"-c {name}={value}" for name, value in all_settings.items())
    cluster.control("start", "-o", f"-p {cluster.port} {options}")
    try:
        yield cluster
    finally:
        cluster.control("stop", "-m", "immediate")


@dataclass
class JobsProcess:
    """A worker or beat: a process of `python -m studio.jobs`."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    python: str = sys.executable
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [self.python, "-m", "studio.jobs", *self.arguments],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_ready(self) -> bool:
        """Return whether the worker has started.

        Raises:
            AssertionError: The process has ended.
        """
        log = self.log.read_text(errors="replace")
        assert self.process.poll() is None, f"the process ended with status {self.process.returncode}: {log}"
        return "the worker is ready" in log

    def kill(self) -> None:
        """Kill the process with SIGKILL, in the middle of its work."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.resume()
        stop(self.process)


@contextlib.contextmanager
def run_jobs_processes(
    folder: Path, environment: dict[str, str], *commands: str, python: str = sys.executable
) -> Iterator[list[JobsProcess]]:
    """Run workers and beat within the block.

    Args:
        folder: The folder for their logs.
        environment: Their environment variables.
        commands: The arguments of each process, for example `worker --beat`.
        python: The interpreter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = [
        JobsProcess(tuple(command.split()), environment, folder / f"jobs-{number}.log", python)
        for number, command in enumerate(commands)
    ]
    try:
        for process in started:
            process.start()
        yield started
    finally:
        for process in started:
            process.stop()


def build_environment(
    folder: Path, database_url: str, broker: RedisServer, **settings: str
) -> dict[str, str]:
    """Return the environment variables that the server, workers and beat share."""
    return {
        "SARTIQ_ENV": "test",
        "SECRET_KEY": SECRET_KEY,
        "DATA_DIR": str(folder),
        "MEDIA_DIR": str(folder / "media"),
        "DATABASE_URL": database_url,
        "CELERY_BROKER_URL": broker.url,
        **settings,
    }
