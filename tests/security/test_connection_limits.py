"""Which connections count for which limit; tests/e2e/test_connections.py opens real ones."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from handlers.pipeline.admission.connections import (
    ANSWERED_BEYOND_LIMIT,
    ANSWERED_OF_ADDRESS,
    Admission,
    ConnectionLimits,
    fit_connections,
)
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.errors import build_problem
from handlers.pipeline.middleware.error_boundary import ErrorBoundary
from handlers.pipeline.middleware.mock_responses import ABORT_EXTENSION
from handlers.pipeline.middleware.routing import REJECTED_CONNECTION
from handlers.server.mock_environment import MockHttpProtocol
from studio.infrastructure.settings import InvalidSettings


def admit(limits: ConnectionLimits, peer: str | None, count: int) -> set[Admission]:
    """Return what happens to this number of new connections."""
    return {limits.admit(peer) for _ in range(count)}


def test_s19_connections_of_an_address_are_limited_until_some_end() -> None:
    limits = ConnectionLimits(100, 10, ())
    assert admit(limits, "192.0.2.1", 10) == {Admission.SERVED}
    assert admit(limits, "192.0.2.1", ANSWERED_OF_ADDRESS) == {Admission.REJECTED_OF_ADDRESS}
    assert admit(limits, "192.0.2.1", 3) == {Admission.CLOSED}
    assert admit(limits, "192.0.2.2", 10) == {Admission.SERVED}
    for _ in range(ANSWERED_OF_ADDRESS + 4):
        limits.release("192.0.2.1")
    assert [limits.admit("192.0.2.1") for _ in range(2)] == [Admission.SERVED, Admission.REJECTED_OF_ADDRESS]


def test_s19_addresses_without_a_connection_are_forgotten() -> None:
    limits = ConnectionLimits(100, 10, ())
    for number in range(1_000):
        peer = f"2001:db8:0:{number:x}::1"
        assert limits.admit(peer) is Admission.SERVED
        limits.release(peer)
    assert len(limits._open_of) == 0


def test_s19_an_ipv6_network_counts_as_one_address() -> None:
    limits = ConnectionLimits(100, 2, ())
    assert admit(limits, "2001:db8::1", 1) | admit(limits, "2001:db8::2", 1) == {Admission.SERVED}
    assert limits.admit("2001:db8::3") is Admission.REJECTED_OF_ADDRESS
    assert limits.admit("2001:db8:0:1::3") is Admission.SERVED
    assert admit(limits, "::ffff:192.0.2.1", 2) == {Admission.SERVED}
    assert limits.admit("192.0.2.1") is Admission.REJECTED_OF_ADDRESS


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::7", None])
def test_s19_trusted_proxies_and_unix_sockets_share_the_total_only(peer: str | None) -> None:
    limits = ConnectionLimits(20, 2, ("10.0.0.0/8", "fd00::/8"))
    assert admit(limits, "192.0.2.1", 2) == {Admission.SERVED}
    assert admit(limits, peer, 18) == {Admission.SERVED}
    assert admit(limits, peer, ANSWERED_BEYOND_LIMIT) == {Admission.REJECTED}
    assert limits.admit(peer) is Admission.CLOSED
    for _ in range(ANSWERED_BEYOND_LIMIT + 2):
        limits.release(peer)
    assert limits.admit(peer) is Admission.SERVED


def test_s19_a_mock_rejects_connections_beyond_a_limit_too() -> None:
    extensions: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        extensions.update(scope["extensions"])
        await PlainTextResponse("")(scope, receive, send)

    async def request() -> None:
        config = uvicorn.Config(app, log_config=None)
        config.load()
        protocol = partial(MockHttpProtocol, config=config, server_state=ServerState(), app_state={})
        limits = {"public_url": "", "idle_timeout": 5, "connection_limits": ConnectionLimits(0, 0, ())}
        server = await asyncio.get_running_loop().create_server(partial(protocol, **limits), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: mock\r\n\r\n")
            await reader.read()
            writer.close()

    asyncio.run(request())
    assert extensions.keys() == {REJECTED_CONNECTION, ABORT_EXTENSION}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_s19_a_request_that_can_open_no_file_is_503(number: int) -> None:
    error = OSError(number, os.strerror(number))
    problem = build_problem(error)
    assert (problem.status, problem.code, problem.headers) == (503, "unavailable", {"Retry-After": "5"})
    assert problem.limit is Limit.OPEN_FILES
    sent: list[Any] = []

    async def fail(*_: object) -> None:
        raise error

    async def send(message: Any) -> None:
        sent.append(message)

    boundary = ErrorBoundary(fail, public_url="http://localhost:8000")
    asyncio.run(boundary({"type": "http", "method": "GET"}, None, send))  # type: ignore[arg-type]  # not read
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (503, "unavailable")
    assert (b"retry-after", b"5") in sent[0]["headers"]


def set_limit(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    """Let the process have this limit of open files, and return the list of its changes."""
    changes: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: changes.append(limits))
    return changes


def test_s19_the_limit_of_open_files_is_raised_as_far_as_it_may(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needed = 2 * (1_000 + ANSWERED_BEYOND_LIMIT) + 172
    assert (set_limit(monkeypatch, needed, needed), fit_connections(1_000, 172)) == ([], 1_000)
    for hard in (resource.RLIM_INFINITY, 524_288):
        changes = set_limit(monkeypatch, 256, hard)
        assert (fit_connections(1_000, 172), changes) == (1_000, [(needed, hard)])
    assert caplog.messages == []
    changes = set_limit(monkeypatch, 256, 1_024)
    assert (fit_connections(1_000, 172), changes) == (362, [(1_024, 1_024)])
    assert caplog.messages == ["MAX_CONNECTIONS is lowered to 362: the limit of open files is 1024"]
    set_limit(monkeypatch, 256, 300)
    with pytest.raises(InvalidSettings, match="the limit of open files is 300, and the server needs 2300"):
        fit_connections(1_000, 172)
