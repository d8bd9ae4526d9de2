"""Faults of the server's surroundings: each starts a server, breaks one thing it depends on, and mends it.

Disk, object storage, mail server, clock, PostgreSQL and the memory of Redis. Everything belongs to the run.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis
import time_machine
from aiosmtpd.controller import Controller

from tests.resilience.customers import RECOVERY_SECONDS, Customers
from tests.support.servers.s3 import run_s3_server
from tests.support.servers.small_disk import can_mount, run_on_small_disk
from tools.servers.processes import (
    DependencyMissing,
    build_environment,
    report_logs,
    run_jobs_processes,
    run_postgres,
    run_redis,
    wait_until,
)
from tools.servers.server import RunningServer, free_port, running_server

CALM_SECONDS, OUTAGE_SECONDS = 3, 8
SLOW_SECONDS = 2.0
HOUR = 3_600
REDIS_BYTES = "1mb"
CLOCK_HOOK = f'''
"""Let the clock of this process differ by the seconds in the file CLOCK_FILE. Python loads it by its name."""
import os, sys, threading, time
sys.path.insert(0, {str(Path(time_machine.__file__).parents[1])!r})
import time_machine

def follow():
    current, traveler = 0.0, None
    while True:
        threading.Event().wait(0.1)
        with open(os.environ["CLOCK_FILE"]) as file:
            offset = float(file.read() or 0)
        if offset != current:
            if traveler is not None:
                traveler.stop()
                traveler = None
            if offset:
                traveler = time_machine.travel(time.time() + offset, tick=True)
                traveler.start()
            current = offset

threading.Thread(target=follow, daemon=True).start()
'''


@dataclass(frozen=True)
class Stage:
    """A running server, and the two functions that break and mend what it depends on."""

    server: RunningServer
    begin: Callable[[], object]
    end: Callable[[], object]
    invites: bool = False


class Proxy:
    """A TCP proxy that can close all connections and refuse new ones, or delay what the target sends."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self.delay = 0.0
        self.is_away = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def leave(self) -> None:
        """Break all connections and refuse new ones."""
        self.is_away = True
        for each in tuple(self._open):
            with contextlib.suppress(OSError):  # it is closed already
                each.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Forward again, without a delay."""
        self.is_away, self.delay = False, 0.0

    def slow_down(self) -> None:
        """Delay each piece that the target sends."""
        self.delay = SLOW_SECONDS

    def close(self) -> None:
        """Stop."""
        self.leave()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            if self.is_away:
                client.close()
                continue
            try:
                target = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            self._open |= {client, target}
            for source, sink, delays in ((client, target, False), (target, client, True)):
                threading.Thread(target=self._forward, args=(source, sink, delays), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, delays: bool) -> None:
        with contextlib.suppress(OSError):  # one of the two sides has gone
            while piece := source.recv(1 << 20):
                if delays and self.delay:
                    time.sleep(self.delay)
                sink.sendall(piece)
        for each in (source, sink):
            self._open.discard(each)
            with contextlib.suppress(OSError):  # the other thread has closed it
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class MailServer:
    """A handler of aiosmtpd that counts the messages."""

    def __init__(self) -> None:
        self.received = 0

    async def handle_DATA(self, *_: object) -> str:
        """Accept a message."""
        self.received += 1
        return "250 OK"


@contextmanager
def fill_disk(folder: Path) -> Iterator[Stage]:
    """Leave no space on the disk of the images and the temporary files."""
    if not can_mount():
        raise DependencyMissing("user namespaces, to mount a small disk")
    with run_on_small_disk(folder / "small", LEASE_SECONDS="5") as disk, ExitStack() as filled:
        yield Stage(disk.server, lambda: filled.enter_context(disk.filled()), filled.close)


@contextmanager
def _object_storage(folder: Path, fault: Callable[[Proxy], object]) -> Iterator[Stage]:
    logging.getLogger("werkzeug").setLevel("ERROR")  # the S3 server logs each request
    with run_s3_server() as (url, bucket), _own_database(folder) as database_url:
        port = int(url.rpartition(":")[2])
        proxy = Proxy("127.0.0.1", port)
        endpoint = f"http://127.0.0.1:{proxy.port}"
        try:
            with running_server(
                folder / "server",
                DATABASE_URL=database_url,
                MEDIA_URL=f"s3://{bucket}",
                S3_ENDPOINT_URL=endpoint,
                LEASE_SECONDS="5",
            ) as server:
                yield Stage(server, lambda: fault(proxy), proxy.come_back)
        finally:
            proxy.close()


def lose_object_storage(folder: Path) -> AbstractContextManager[Stage]:
    """Reject the connections to S3."""
    return _object_storage(folder, Proxy.leave)


def slow_object_storage(folder: Path) -> AbstractContextManager[Stage]:
    """Delay the responses of S3 by seconds."""
    return _object_storage(folder, Proxy.slow_down)


@contextmanager
def lose_mail_server(folder: Path) -> Iterator[Stage]:
    """Reject the connections to the mail server; afterwards, mail must arrive again."""
    received = MailServer()
    controller = Controller(received, hostname="127.0.0.1", port=free_port())
    controller.start()
    proxy, before = Proxy("127.0.0.1", controller.port), [0]
    try:
        with (
            _own_database(folder) as database_url,
            running_server(
                folder / "server", DATABASE_URL=database_url, SMTP_URL=f"smtp://127.0.0.1:{proxy.port}"
            ) as server,
        ):

            def end() -> None:
                proxy.come_back()
                before[0] = received.received

            yield Stage(server, proxy.leave, end, invites=True)
            wait_until(lambda: received.received > before[0], "mail arrives after the fault")
    finally:
        proxy.close()
        controller.stop()


@contextmanager
def jump_clock(folder: Path) -> Iterator[Stage]:
    """Set the clock of the server forward by an hour, and back."""
    hook, offset = folder / "clock", folder / "offset"
    hook.mkdir(parents=True)
    (hook / "sitecustomize.py").write_text(CLOCK_HOOK)
    offset.write_text("0")
    with (
        _own_database(folder) as database_url,
        running_server(
            folder / "server",
            DATABASE_URL=database_url,
            PYTHONPATH=str(hook),
            CLOCK_FILE=str(offset),
            LEASE_SECONDS="5",
            # The default of production: a jump must not exhaust a limit of requests per minute.
            LIMIT_ACCOUNT="1200",
        ) as server,
    ):
        yield Stage(server, lambda: offset.write_text(str(HOUR)), lambda: offset.write_text("0"))


@contextmanager
def restart_database(folder: Path) -> Iterator[Stage]:
    """Crash PostgreSQL twice; it starts again and replays its write-ahead log."""
    with (
        run_postgres(folder / "postgresql") as cluster,
        running_server(folder / "server", DATABASE_URL=cluster.url, LEASE_SECONDS="5") as server,
    ):
        yield Stage(server, cluster.restart, cluster.restart)


@contextmanager
def fill_redis(folder: Path) -> Iterator[Stage]:
    """Let Redis reject each write, because it has reached its maximum memory."""
    with run_postgres(folder / "postgresql") as cluster, run_redis() as broker:
        environment = build_environment(folder / "server", cluster.url, broker, LEASE_SECONDS="5")
        with (
            running_server(folder / "server", **environment) as server,
            run_jobs_processes(folder / "jobs", environment, "worker", "beat") as (worker, _),
            redis.Redis(port=broker.port) as client,
        ):
            wait_until(worker.is_ready, "the worker is ready")

            def begin() -> None:
                client.config_set("maxmemory-policy", "noeviction")
                client.config_set("maxmemory", REDIS_BYTES)
                with contextlib.suppress(redis.exceptions.OutOfMemoryError):  # ends the filling
                    for number in range(1_000):
                        client.set(f"filling-{number}", bytes(10_000))

            def end() -> None:
                client.config_set("maxmemory", "0")
                client.delete("any", *client.keys("filling-*"))

            yield Stage(server, begin, end)


@contextmanager
def _own_database(folder: Path) -> Iterator[str]:
    with run_postgres(folder / "postgresql") as cluster:
        yield cluster.url


OUTAGES: dict[str, Callable[[Path], AbstractContextManager[Stage]]] = {
    "disk-full": fill_disk,
    "s3-away": lose_object_storage,
    "s3-slow": slow_object_storage,
    "smtp-away": lose_mail_server,
    "clock-jump": jump_clock,
    "database-restart": restart_database,
    "redis-full": fill_redis,
}


@dataclass(frozen=True)
class Finding:
    """The counts of one fault, and what is wrong."""

    acknowledged: int
    acknowledged_during: int
    statuses: dict[str, int]
    recovery_seconds: float
    failures: list[str]
    late: list[str]
    """What was complete only after the time for recovery. It is no failure."""


def run_outage(name: str, folder: Path, seed: int) -> Finding:
    """Let customers work before, during and after a fault, then check what was acknowledged.

    Args:
        name: A key of `OUTAGES`.
        folder: Where files and logs go.
        seed: Of the time at which the fault begins.
    """
    calm = random.Random(f"{seed} {name}").uniform(CALM_SECONDS, CALM_SECONDS + 2)
    folder.mkdir(parents=True, exist_ok=True)
    with report_logs(folder), OUTAGES[name](folder) as stage:
        customers = Customers(stage.server.url, stage.invites)
        time.sleep(calm)
        stage.begin()
        before = customers.record.count_acknowledged()
        time.sleep(OUTAGE_SECONDS)
        during = customers.record.count_acknowledged() - before
        stage.end()
        began = time.monotonic()
        wait_until(
            lambda: _is_ready(stage.server) and customers.record.count_acknowledged() > before + during,
            "the server is ready and acknowledges writes",
            RECOVERY_SECONDS,
        )
        recovered = time.monotonic() - began
        time.sleep(CALM_SECONDS)
        customers.stop()
        losses = customers.list_losses()
        record = customers.record
        return Finding(
            record.count_acknowledged(),
            during,
            dict(record.statuses),
            recovered,
            [*record.violations, *(f"lost: {each}" for each in losses)],
            record.late,
        )


def _is_ready(server: RunningServer) -> bool:
    with contextlib.suppress(httpx.TransportError):  # not ready
        return httpx.get(f"{server.url}/utils/readiness", timeout=10).status_code == 200
    return False
