"""Real processes to break: a Redis, a PostgreSQL, workers and beat of one's own, on free ports.

It knows how to start, stop, pause and kill them, and nothing of what they are to do meanwhile.
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
from sqlalchemy import select

from db.base import utc_now
from db.models.generations import Generation, GenerationStatus
from db.session import Database
from tests.e2e.server import ROOT, free_port, stop

START_TIMEOUT_SECONDS = 60
SECRET = "a secret of servers under test that is long enough"


class DependencyMissing(Exception):
    """Something that has to be installed is missing; the message says what."""


def wait_until(
    condition: Callable[[], object], description: str, seconds: float = START_TIMEOUT_SECONDS
) -> None:
    """Return once it is so; AssertionError when it does not become so in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"after {seconds:.0f} s still not: {description}")


@dataclass
class RedisServer:
    """A Redis that keeps nothing on disk."""

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
        wait_until(self.is_responding, "Redis answers")

    def is_responding(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            return bool(client.ping())
        return False

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)

    def count_messages(self, name: str) -> int:
        """How many messages wait in a queue."""
        with redis.Redis(port=self.port) as client:
            return int(client.llen(name))

    def flush(self) -> None:
        """Forget every message, queue and binding."""
        with redis.Redis(port=self.port) as client:
            client.flushall()


@contextlib.contextmanager
def run_redis() -> Iterator[RedisServer]:
    """A running Redis; NotThere when none is installed."""
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
    """A PostgreSQL server with its files in one folder."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def process_id(self) -> int:
        """The process that all others of the server descend from."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, as a user that it agrees to run as."""
        # It refuses to run as root.
        as_somebody = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run(
            [*as_somebody, str(self.programs / program), *arguments],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def control(self, action: str, *arguments: str) -> None:
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-w", *arguments, action)

    def restart(self) -> None:
        """Crash and come back: nobody is waited for, connections break, the log is replayed."""
        self.control("restart", "-m", "immediate")


@contextlib.contextmanager
def run_postgres(folder: Path, **settings: str) -> Iterator[PostgresServer]:
    """A running PostgreSQL below `folder` with these settings; NotThere when none is installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not installed:
        raise DependencyMissing("PostgreSQL (make services installs it)")
    cluster = PostgresServer(installed[-1], folder, free_port())
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        for above in folder.parents[:2]:
            above.chmod(0o755)
    cluster.run("initdb", "-D", str(folder / "data"), "-U", "postgres", "--auth=trust", "-E", "UTF8")
    told = {"listen_addresses": "127.0.0.1", **settings}
    options = " ".join(f"-c {name}={value}" for name, value in told.items())
    cluster.control("start", "-o", f"-p {cluster.port} -k {folder} {options}")
    try:
        yield cluster
    finally:
        cluster.control("stop", "-m", "immediate")


@dataclass
class JobsProcess:
    """A worker or beat: `python -m studio.jobs ...` in a process of its own."""

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
        return "the worker is ready" in self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End it at once, with all it has in hand."""
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
    """Workers and beat, started together; the commands are what follows `python -m studio.jobs`."""
    folder.mkdir(parents=True, exist_ok=True)
    started = [
        JobsProcess(tuple(command.split()), environment, folder / f"helper-{number}.log", python)
        for number, command in enumerate(commands)
    ]
    try:
        for helper in started:
            helper.start()
        yield started
    finally:
        for helper in started:
            helper.stop()


def build_environment(
    folder: Path, database_url: str, broker: RedisServer, **settings: str
) -> dict[str, str]:
    """The settings that server, workers and beat have in common."""
    return {
        "SARTIQ_ENV": "test",
        "SECRET_KEY": SECRET,
        "DATA_DIR": str(folder),
        "MEDIA_DIR": str(folder / "media"),
        "DATABASE_URL": database_url,
        "CELERY_BROKER_URL": broker.url,
        **settings,
    }


def has_running_generation(database: Database, helper: JobsProcess) -> bool:
    """Whether a generation is running in this worker, by the name that it writes into the row."""
    # unscoped: any tenant's
    running = select(Generation.id).where(
        Generation.status == GenerationStatus.RUNNING,
        Generation.lease_owner.contains(f":{helper.pid}:"),
        Generation.lease_expires_at > utc_now(),
    )
    with database.transaction(write=False) as reading:
        return reading.scalar(running.limit(1)) is not None
