"""Tests of `--workers N`: several processes at one port, their losses, their metrics, reload and shutdown."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from handlers.server.supervisor import Supervisor
from tests.support.forks import run_in_fork
from tools.demo import EMAIL, PASSWORD, Api
from tools.servers.processes import RedisServer
from tools.servers.server import RunningServer, free_port, running_server, wait_until_ready

REQUEST_HEAD = (
    b"POST /api/v1/users/signup HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
)
"""The head of a request that the server rejects when its body has arrived."""
MAX_PRIVATE_BYTES = 60_000_000
"""Memory that a further worker may need, after reads and writes without images."""
pytestmark = [
    pytest.mark.slow("each test starts processes; tests/e2e/test_startup.py covers the required settings"),
    pytest.mark.skipif(sys.platform != "linux", reason="the tests read /proc, which only Linux has"),
]


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, broker: RedisServer, metrics_port: int
) -> Iterator[RunningServer]:
    """A server with two workers, and demo data."""
    folder = tmp_path_factory.mktemp("workers")
    with start_workers(folder, broker, METRICS_PORT=str(metrics_port), SARTIQ_ENV="development") as running:
        yield running


def start_workers(
    folder: Path, broker: RedisServer, **settings: str
) -> contextlib.AbstractContextManager[RunningServer]:
    return running_server(folder, "handlers --workers 2", CELERY_BROKER_URL=broker.url, **settings)


def list_children(server: RunningServer) -> set[int]:
    pid = server.process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def list_sockets(pid: int) -> list[str]:
    """Return the sockets that a process has open."""
    targets = [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return [target for target in targets if target.startswith("socket:")]


def list_workers(server: RunningServer) -> set[int]:
    """Return the child processes that serve requests: they have an event loop."""
    return {pid for pid in list_children(server) if has_event_loop(pid)}


def has_event_loop(pid: int) -> bool:
    try:
        return any("eventpoll" in os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # the process or the file is closed since
        return False


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.origin.rpartition(":")[2])), timeout=15)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.1)


def private_bytes(pid: int) -> int:
    """Return the memory of a process that it shares with no other."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) * 1024 for size in re.findall(r"^Private_\w+: +(\d+) kB", rollup, re.MULTILINE))


def count_requests(port: int) -> float:
    """Return how many requests of the health check the metrics of all workers have."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    pattern = r'^sartiq_requests_total\{method="GET",operation="health",status="200"\} (\S+)$'
    return sum(float(value) for value in re.findall(pattern, text, re.MULTILINE))


def call_in_parallel(server: RunningServer, calls: int) -> None:
    """Send health checks on several connections at a time, so that both workers get some."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client()) for _ in range(8)]
        threads = [
            threading.Thread(
                target=lambda client=client: [client.get(f"{server.url}/utils/health") for _ in range(calls)]
            )
            for client in clients
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_the_process_that_forks_has_one_thread_and_only_the_listening_socket(server: RunningServer) -> None:
    pid = server.process.pid
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    assert len(list_sockets(pid)) == 1
    assert len(list_workers(server)) == 2
    assert len(list_children(server)) == 3  # and the one that serves the metrics


def test_both_workers_serve(server: RunningServer) -> None:
    before = {pid: len(list_sockets(pid)) for pid in list_workers(server)}
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(httpx.Client())
            assert client.get(f"{server.url}/utils/health").status_code == 200
        added = {pid: len(list_sockets(pid)) - count for pid, count in before.items()}
    assert len(added) == 2
    assert min(added.values()) > 0, added


def test_the_metrics_of_all_workers_are_added_up_at_one_port(
    server: RunningServer, metrics_port: int
) -> None:
    before = count_requests(metrics_port)
    call_in_parallel(server, 25)
    assert count_requests(metrics_port) - before == 200
    text = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    names = Counter(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    assert {name for name, times in names.items() if times > 1} == set()
    assert {"sartiq_queue_depth", "sartiq_database_connections_max"} <= set(names)
    assert 'sartiq_generations_total{outcome="completed"} 0.0' in text
    memory = re.findall(r"^process_resident_memory_bytes{pid=\"(\d+)\"} (\S+)$", text, re.MULTILINE)
    assert {int(pid) for pid, _ in memory} == list_children(server)
    assert min(float(size) for _, size in memory) > 10_000_000
    assert not re.search("^sartiq.*pid=", text, re.MULTILINE)


def test_a_further_worker_needs_little_memory(server: RunningServer) -> None:
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        for number in range(30):
            api.post("/products/", json={"name": f"Mug {number}"})
            api.get("/products/")
    call_in_parallel(server, 25)
    sizes = [private_bytes(pid) for pid in list_workers(server)]
    assert max(sizes) < MAX_PRIVATE_BYTES, sizes


def test_a_killed_worker_is_replaced_while_the_other_one_serves(
    server: RunningServer, metrics_port: int
) -> None:
    before = list_workers(server)
    counted = count_requests(metrics_port)
    os.kill(min(before), signal.SIGKILL)
    for _ in range(20):
        assert httpx.get(f"{server.url}/utils/health").status_code == 200
    wait_for(lambda: len(list_workers(server)) == 2)
    assert len(list_workers(server) & before) == 1
    assert count_requests(metrics_port) - counted == 20


def test_a_reload_replaces_all_workers_without_a_lost_request(
    server: RunningServer, metrics_port: int
) -> None:
    before, counted = list_children(server), count_requests(metrics_port)
    results: Counter[object] = Counter()
    is_done = threading.Event()

    def send_requests() -> None:
        while not is_done.is_set():
            try:
                results[httpx.get(f"{server.url}/utils/health", timeout=30).status_code] += 1
            except httpx.TransportError as error:
                results[repr(error)] += 1

    threads = [threading.Thread(target=send_requests) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):  # the second one proves that a reloaded server can reload
            old = list_children(server)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda old=old: not list_children(server) & old and len(list_workers(server)) == 2)
    finally:
        is_done.set()
        for thread in threads:
            thread.join()
    assert set(results) == {200}, results
    assert not list_children(server) & before
    assert count_requests(metrics_port) - counted == results[200]


def test_new_code_that_does_not_start_leaves_the_old_workers(tmp_path: Path, broker: RedisServer) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4)
    with start_workers(tmp_path, broker, SECRET_KEY="", SECRET_KEY_FILE=str(secret)) as server:
        before = list_workers(server)
        secret.unlink()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "not reloaded" in server.log.read_text())
        assert list_workers(server) == before
        wait_until_ready(server)


def test_sigterm_ends_all_workers_after_their_requests(tmp_path: Path, broker: RedisServer) -> None:
    with start_workers(tmp_path, broker) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(connect(server))
        children = list_children(server)
        client.sendall(REQUEST_HEAD + b"{")
        silent = stack.enter_context(connect(server))
        time.sleep(0.5)
        began = time.monotonic()
        server.process.terminate()
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        client.sendall(b"}")
        silent.sendall(REQUEST_HEAD + b"{}")
        for each in (client, silent):
            assert each.recv(65_536).startswith(b"HTTP/1.1 4")
        assert server.process.wait(15) == 0
        assert time.monotonic() - began < 12
        assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
        assert "Traceback" not in server.log.read_text()


def test_a_start_fails_when_its_workers_end_again_and_again() -> None:
    def start() -> None:
        supervisor = Supervisor(2, ("127.0.0.1", 0), None)
        status = supervisor.run(lambda slot: 1 / 0, None, lambda: None)
        assert status == 1
        assert not Path(supervisor.state.metrics_folder).exists()

    assert run_in_fork(start) == 0


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path, broker: RedisServer) -> None:
    with start_workers(tmp_path, broker) as server:
        children = list_children(server)
        server.process.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 20)
