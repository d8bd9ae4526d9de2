"""Tests of the check that a process can listen, and of the two command lines that make it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from studio.infrastructure.listening import require_free_address
from studio.infrastructure.settings import InvalidSettings
from studio.jobs.__main__ import main as run_jobs


@pytest.fixture
def used_port() -> Iterator[int]:
    """Yield a port at which another process listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_in_use_is_named_with_its_settings(used_port: int) -> None:
    with pytest.raises(InvalidSettings) as raised:
        require_free_address("127.0.0.1", used_port, "METRICS_")
    assert str(raised.value) == (
        f"METRICS_HOST=127.0.0.1 METRICS_PORT={used_port}: address already in use: "
        "stop the other process, or set another METRICS_PORT"
    )


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(InvalidSettings, match=r"^HOST=no\.such\.host\.invalid PORT=8000: "):
        require_free_address("no.such.host.invalid", 8000)


def test_a_free_port_can_be_used_afterwards(used_port: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    require_free_address("localhost", port)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


def test_a_worker_whose_metrics_port_is_in_use_says_so(
    used_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METRICS_PORT", str(used_port))
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(SystemExit) as raised:
        run_jobs(["worker"])
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith(
        f"Not started: METRICS_HOST=127.0.0.1 METRICS_PORT={used_port}: "
    )
