"""No single client can take all threads: concurrent requests are limited per account and per address."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from sqlalchemy import delete

from db.errors import UnreadableImage
from db.models import ApiKey, User
from db.session import Database
from handlers.app import Application
from handlers.pipeline.admission.concurrency import PROBES_PER_SECOND
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.errors import REJECTION_SECONDS
from handlers.server.cli import Server
from studio.infrastructure.fair_slots import FairSlots, Requester, account_name, current_requester
from studio.rate_limits.concurrency import ConcurrencyLimiter
from tests.api.conftest import Client, CommittingServer
from tests.security.rate_limits import AppFromAddress
from tests.support import factories
from tests.support.app import auth_headers
from tests.support.client import ClientResponse, send_request
from tests.support.factories.api_keys import api_key_headers
from tests.support.rejections import Rejections
from tests.support.streaming import StreamingRequest, enable_long_polling, run_with_long_polling

LIMIT = 32
"""The default of LIMIT_CONCURRENT_REQUESTS."""
TIMEOUT_SECONDS = 20


@dataclass
class BlockedHandler:
    """A handler that waits for its release. It also counts the threads in which it runs."""

    real: Callable[..., Any]
    released: threading.Event = field(default_factory=threading.Event)
    running: int = 0
    most: int = 0
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, **arguments: Any) -> Any:
        with self.lock:
            self.running += 1
            self.calls += 1
            self.most = max(self.most, self.running)
        assert self.released.wait(TIMEOUT_SECONDS)
        with self.lock:
            self.running -= 1
        return self.real(**arguments)


@pytest.fixture
def limiter(application: Application, monkeypatch: pytest.MonkeyPatch) -> ConcurrencyLimiter:
    """Return the application's limiter, with the default limit."""
    found: ConcurrencyLimiter = application.services.concurrency_limiter
    monkeypatch.setattr(found, "limit", LIMIT)
    return found


@pytest.fixture
def blocked(application: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockedHandler]:
    """Yield the handler of `create_shooting`, which waits until the test releases it.

    Each account can have half of the threads, also while there are others.
    """
    monkeypatch.setattr("studio.infrastructure.fair_slots.CONTENDED_SECONDS", 0)
    endpoint = application.endpoints["create_shooting"]
    handler = BlockedHandler(endpoint._handler)
    monkeypatch.setattr(endpoint, "_handler", handler)
    yield handler
    handler.released.set()


@pytest.fixture
def busy_threads(application: Application) -> Iterator[None]:
    """Occupy all request threads within the test."""
    bridge, released = application.bridge, threading.Event()
    blockers = [bridge.pool.submit(released.wait, TIMEOUT_SECONDS) for _ in range(bridge.pool._max_workers)]
    yield
    released.set()
    wait(blockers)


def make_client(server: CommittingServer, user: User | None = None) -> tuple[Client, str]:
    """Return a client of a new account, and the name of the owner that its requests count for."""
    with server.database.transaction(write=True):
        user = user or factories.make_user()
        return Client(server.client.app, auth_headers(server.client.app, user)), account_name(user.id)


def open_requests(client: Client, path: str, count: int) -> list[StreamingRequest]:
    return [StreamingRequest(client, "GET", path, None, {}) for _ in range(count)]


def open_writes(client: Client, count: int, query: str = "") -> list[StreamingRequest]:
    """Return requests that a thread serves."""
    return [StreamingRequest(client, "POST", f"/shootings/{query}", {"name": "A"}, {}) for _ in range(count)]


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def assert_too_many(response: ClientResponse) -> None:
    problem = response.json()
    assert response.status == 429, response.body
    assert (problem["code"], problem["policy"]) == ("too_many_concurrent_requests", "concurrent-requests")
    assert response.headers["retry-after"] == "1"
    assert problem["type"].endswith("/api/v1/problems/too_many_concurrent_requests")


def test_s34_sixty_connections_of_one_account_leave_threads_for_others(
    committing_server: CommittingServer, limiter: ConcurrencyLimiter, blocked: BlockedHandler
) -> None:
    bridge = committing_server.client.app.bridge
    hostile, owner_name = make_client(committing_server)
    other, _ = make_client(committing_server)

    async def scenario() -> None:
        connections = open_writes(hostile, 60)
        await wait_until(lambda: sum(each.task.done() for each in connections) == 60 - LIMIT)
        threads = bridge.pool._max_workers // 2
        await wait_until(lambda: blocked.running == threads)
        assert limiter.count_running(owner_name) == LIMIT
        assert bridge.thread_slots.count_held(owner_name) == threads
        assert bridge.thread_slots.count_waiting(owner_name) == LIMIT - threads
        for each in connections:
            if each.task.done():
                assert_too_many(await each.read_response())
        # The other account is served while the first one is blocked.
        (request,) = open_requests(other, "/users/me", 1)
        assert (await request.read_response()).status == 200
        assert blocked.running == threads
        blocked.released.set()
        statuses = [(await each.read_response()).status for each in connections]
        assert (statuses.count(201), statuses.count(429)) == (LIMIT, 60 - LIMIT)
        assert blocked.most == threads
        assert limiter.count_running(owner_name) == 0

    asyncio.run(scenario())
    assert hostile("GET", "/changes/").status == 200


def test_s34_accounts_that_wait_for_a_thread_take_turns(
    committing_server: CommittingServer, limiter: ConcurrencyLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = committing_server.client.app
    # Fewer threads than the database of the test has connections.
    slots = FairSlots(4, 2)
    monkeypatch.setattr(app.bridge, "thread_slots", slots)
    (first, first_owner), (second, second_owner) = (make_client(committing_server) for _ in range(2))
    third, third_owner = make_client(committing_server)
    endpoint, released = app.endpoints["create_shooting"], threading.Semaphore(0)
    real = endpoint._handler

    def handle(**arguments: Any) -> Any:
        assert released.acquire(timeout=TIMEOUT_SECONDS)
        return real(**arguments)

    monkeypatch.setattr(endpoint, "_handler", handle)

    async def scenario() -> None:
        hostile = open_writes(first, 20) + open_writes(second, 20)
        await wait_until(lambda: slots.count_waiting(first_owner) == slots.count_waiting(second_owner) == 18)
        request = StreamingRequest(third, "POST", "/organizations/", {"name": "A"}, {})
        await wait_until(lambda: slots.count_waiting(third_owner) == 1)
        # Each of the two accounts has at most one turn before the third account.
        released.release(3)
        assert (await request.read_response()).status == 201
        released.release(40)
        assert {(await each.read_response()).status for each in hostile} == {201}

    asyncio.run(scenario())


def test_s34_an_api_key_counts_for_its_user(
    application: Application, committing_server: CommittingServer, limiter: ConcurrencyLimiter,
    blocked: BlockedHandler, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(limiter, "limit", 3)
    with committing_server.database.transaction(write=True):
        user = factories.make_user()
        organizations = [factories.make_organization(user) for _ in range(2)]
        headers = [
            api_key_headers(application, organization, scopes=["shootings:write"])
            for organization in organizations
        ]
    by_token, owner_name = make_client(committing_server, user)
    by_key = [Client(application, each) for each in headers]

    async def scenario() -> None:
        queries = [f"?organization_id={each.id}" for each in organizations]
        requests = [*open_writes(by_key[0], 2, queries[0]), *open_writes(by_key[1], 1, queries[1])]
        await wait_until(lambda: limiter.count_running(owner_name) == 3)
        for client, query in zip([*by_key, by_token], [*queries, ""], strict=True):
            (request,) = open_writes(client, 1, query)
            assert_too_many(await request.read_response())
        blocked.released.set()
        assert [(await each.read_response()).status for each in requests] == [201, 201, 201]

    asyncio.run(scenario())


def test_s34_requests_without_a_credential_count_by_address(
    client_for: Callable[[User | None], Client], app: Application, limiter: ConcurrencyLimiter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(limiter, "limit", 1)
    assert limiter.try_start("address 127.0.0.1")
    try:
        path = "/generation-models/"
        assert_too_many(client_for(None)("GET", path))
        other_address = AppFromAddress(app, "192.0.2.7")
        assert send_request(other_address, "GET", f"/api/v1{path}").status == 200
        assert client_for(factories.make_user())("GET", "/users/me").status == 200
        # A rejected credential is a 401: it never gets a thread.
        rejected = client_for(None)("GET", "/users/me", headers={"authorization": "Bearer nonsense"})
        assert rejected.status == 401
    finally:
        limiter.finish("address 127.0.0.1")


def test_s34_an_address_with_many_accounts_leaves_a_thread_for_other_addresses(
    committing_server: CommittingServer, limiter: ConcurrencyLimiter, blocked: BlockedHandler
) -> None:
    bridge = committing_server.client.app.bridge
    hostile = [make_client(committing_server)[0] for _ in range(3)]
    other, _ = make_client(committing_server)
    elsewhere = Client(AppFromAddress(other.app, "192.0.2.7"), other.headers)
    threads = bridge.pool._max_workers

    async def scenario() -> None:
        connections = [each for client in hostile for each in open_writes(client, threads)]
        await wait_until(lambda: bridge.thread_slots.count_waiting("address 127.0.0.1") == 2 * threads + 1)
        await wait_until(lambda: blocked.running == threads - 1)
        assert bridge.thread_slots.count_held("address 127.0.0.1") == threads - 1
        (request,) = open_requests(elsewhere, "/users/me", 1)
        assert (await request.read_response()).status == 200
        assert blocked.running == threads - 1
        blocked.released.set()
        # Nothing was rejected.
        assert {(await each.read_response()).status for each in connections} == {201}

    asyncio.run(scenario())


def test_s34_a_signed_upload_counts_for_its_owner_once_the_signature_is_verified(
    client_for: Callable[[User | None], Client], limiter: ConcurrencyLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    user = factories.make_user()
    body = {"filename": "a.png", "content_type": "image/png"}
    url = client_for(user)("POST", "/uploads/presigned-url", body).json()["upload_url"]
    path, headers = url.partition("/api/v1")[2], {"content-type": "image/png"}
    counted = []

    def decode(_file: Any) -> Any:
        names = (account_name(user.id), "address 127.0.0.1")
        counted.append([*(limiter.count_running(name) for name in names), current_requester()])
        raise UnreadableImage

    monkeypatch.setattr("handlers.pipeline.prechecks.read_image", decode)
    assert client_for(None)("PUT", path, body=b"x", headers=headers).status == 422
    assert counted == [[1, 0, Requester(account_name(user.id), "address 127.0.0.1")]]
    monkeypatch.setattr(limiter, "limit", 1)
    assert limiter.try_start(account_name(user.id))
    assert_too_many(client_for(None)("PUT", path, body=b"x", headers=headers))
    limiter.finish(account_name(user.id))
    # Before the signature is verified, the request counts for the address.
    assert limiter.try_start("address 127.0.0.1")
    assert_too_many(client_for(None)("PUT", path.replace("signature=", "signature=0"), headers=headers))
    limiter.finish("address 127.0.0.1")


def test_s34_a_deleted_api_key_counts_for_the_address(
    app: Application, database: Database, client_for: Callable[[User | None], Client],
    limiter: ConcurrencyLimiter, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    user = factories.make_user()
    headers = api_key_headers(app, factories.make_organization(user), scopes=["changes:read"])
    with database.transaction(write=True) as session:
        session.execute(delete(ApiKey))
    monkeypatch.setattr(limiter, "limit", 1)
    assert limiter.try_start(account_name(user.id))
    assert client_for(None)("GET", "/changes/", headers=headers).status == 401
    assert limiter.try_start("address 127.0.0.1")
    assert_too_many(client_for(None)("GET", "/changes/", headers=headers))
    for name in (account_name(user.id), "address 127.0.0.1"):
        limiter.finish(name)
        assert limiter.count_running(name) == 0


def test_s34_long_polling_and_event_streams_are_not_counted(
    committing_server: CommittingServer, limiter: ConcurrencyLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "limit", 1)
    app = committing_server.client.app
    with committing_server.database.transaction(write=True):
        owner = factories.make_user()
        generation = factories.make_generation(owner=owner)
    client, owner_name = make_client(committing_server, owner)
    path = f"/generations/{generation.id}"

    async def scenario() -> None:
        waiting = []
        for headers, suffix in [({"prefer": "wait=30"}, "")] * 5 + [({}, "/events")] * 5:
            waiting.append(StreamingRequest(client, "GET", path + suffix, None, headers))
            await wait_until(lambda: len(app.change_hub) == len(waiting))
            assert limiter.count_running(owner_name) == 0
        # The requests that long polling sends again are not counted either, so that none of them fails.
        assert limiter.try_start(owner_name)
        with committing_server.database.transaction(write=True) as session:
            session.merge(generation).status = "canceled"
            session.get(type(generation), generation.id).revision += 1
        responses = [await each.read_response() for each in waiting]
        assert {response.status for response in responses} == {200}
        limiter.finish(owner_name)

    run_with_long_polling(app, scenario)


@pytest.mark.usefixtures("busy_threads")
@pytest.mark.parametrize(
    "path", ["/utils/health-check/", "/utils/readiness", "/utils/system-health-check", "/utils/db-check/"]
)
def test_s34_probes_never_wait_for_a_request_thread(
    client_for: Callable[[User | None], Client], limiter: ConcurrencyLimiter, path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(limiter, "limit", 0)
    assert client_for(None)("GET", path).status == 200


def test_s34_a_probe_that_takes_long_has_its_last_result(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(committing_server.client.app)
    bridge = committing_server.client.app.bridge
    monkeypatch.setattr(bridge, "probe_stale_seconds", 600.0)
    # A busy disk: fsync took nine seconds.
    check = BlockedHandler(lambda: False)
    checks: dict[str, Callable[[], bool]] = {"disk": lambda: True}
    monkeypatch.setattr("handlers.utils.list_dependencies", lambda: checks)

    async def scenario() -> list[int]:
        async def send() -> int:
            return (await open_requests(client, "/utils/readiness", 1)[0].read_response()).status

        statuses = [await send()]
        checks["database"] = check
        statuses += [await send(), await send()]
        check.released.set()
        await wait_until(lambda: not check.running)
        statuses.append(await send())
        checks["database"] = BlockedHandler(lambda: True)
        monkeypatch.setattr(bridge, "probe_stale_seconds", 0.0)
        (waiting,) = open_requests(client, "/utils/readiness", 1)
        await asyncio.sleep(0.2)
        assert not waiting.task.done()
        checks["database"].released.set()
        return [*statuses, (await waiting.read_response()).status]

    assert asyncio.run(scenario()) == [200, 200, 200, 503, 200]


def test_s34_an_address_that_floods_probes_gets_late_responses_and_others_do_not(
    committing_server: CommittingServer, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(committing_server.client.app)
    monkeypatch.setattr("handlers.pipeline.admission.concurrency.PROBE_DELAY_SECONDS", 600.0)

    async def scenario() -> None:
        # Earlier tests have the same address: begin with a second of which nothing is used.
        await asyncio.sleep(1 - time.monotonic() % 1)
        flood = open_requests(client, "/utils/health-check/", 4 * PROBES_PER_SECOND)
        await wait_until(lambda: sum(each.task.done() for each in flood) >= PROBES_PER_SECOND)
        late = [each.task for each in flood if not each.task.done()]
        # Some may have arrived in the next second.
        assert len(late) >= 2 * PROBES_PER_SECOND
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    asyncio.run(scenario())
    other_address = AppFromAddress(app, "192.0.2.8")
    assert send_request(other_address, "GET", "/api/v1/utils/health-check/").status == 200


def test_s34_a_client_that_sends_again_at_once_gets_its_429_late(
    committing_server: CommittingServer,
    limiter: ConcurrencyLimiter,
    monkeypatch: pytest.MonkeyPatch,
    rejections: Rejections,
) -> None:
    monkeypatch.setattr(limiter, "limit", 0)
    client, _ = make_client(committing_server)
    began = time.monotonic()
    assert_too_many(client("GET", "/users/me"))
    assert rejections.take() == {(429, "too_many_concurrent_requests", Limit.CONCURRENT_REQUESTS)}
    assert time.monotonic() - began >= REJECTION_SECONDS


@pytest.mark.parametrize("fails", [False, True])
def test_s34_a_flood_of_readiness_checks_shares_one_check_at_a_time(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    app = committing_server.client.app
    client = Client(app)
    check = BlockedHandler(lambda: not fails)
    monkeypatch.setattr("handlers.utils.list_dependencies", lambda: {"database": check})
    expected = 503 if fails else 200
    arrived, run_probe = [], app.bridge._run_probe

    def count_and_run(key: tuple[str, str], serve: Callable[[], Any]) -> Any:
        arrived.append(key)
        return run_probe(key, serve)

    monkeypatch.setattr(app.bridge, "_run_probe", count_and_run)

    async def scenario() -> None:
        flood = open_requests(client, "/utils/readiness", 100)
        # A request that arrives after the check has ended starts another one.
        await wait_until(lambda: len(arrived) == 100 and check.running == 1)
        (health,) = open_requests(client, "/utils/health-check/", 1)
        assert (await health.read_response()).status == 200
        check.released.set()
        responses = [await each.read_response() for each in flood]
        assert {each.status for each in responses} == {expected}
        assert len({each.headers["x-request-id"] for each in responses}) == 100
        if fails:
            assert len({each.json()["request_id"] for each in responses}) == 100

    asyncio.run(scenario())
    assert (check.most, check.calls) == (1, 1)
    monkeypatch.setattr(app.bridge, "probe_cache_seconds", 1.0)
    statuses = [client("GET", "/utils/readiness").status for _ in range(5)]
    assert (statuses, check.calls) == ([expected] * 5, 1)
    monkeypatch.setattr(app.bridge, "probe_cache_seconds", 0.0)
    assert (client("HEAD", "/utils/readiness").status, check.calls) == (expected, 2)
    assert (client("GET", "/utils/readiness").status, check.calls) == (expected, 3)


def test_s34_the_thread_of_an_aborted_request_still_counts(
    committing_server: CommittingServer,
    blocked: BlockedHandler,
    monkeypatch: pytest.MonkeyPatch,
    rejections: Rejections,
) -> None:
    bridge = committing_server.client.app.bridge
    client, owner_name = make_client(committing_server)
    threads = bridge.pool._max_workers // 2
    monkeypatch.setattr(bridge, "seconds", 0.3)

    async def scenario() -> None:
        aborted = open_writes(client, threads + 1)
        responses = [await each.read_response() for each in aborted]
        assert {(each.status, each.json()["code"]) for each in responses} == {(503, "took_too_long")}
        assert bridge.thread_slots.count_held(owner_name) == threads
        # A thread may start after its request was aborted.
        await wait_until(lambda: blocked.most == threads)
        blocked.released.set()
        await wait_until(lambda: bridge.thread_slots.count_held(owner_name) == 0)

    asyncio.run(scenario())
    assert rejections.take() == {
        (503, "took_too_long", Limit.REQUEST_TIME),
        (503, "took_too_long", Limit.REQUEST_THREADS),
    }


def test_s38_waiting_requests_are_limited_per_user_not_per_api_key(
    app: Application, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.infrastructure.change_hub.MAX_LISTENERS_PER_ACCOUNT", 2)
    with database.transaction(write=True):
        user = factories.make_user()
        organization = factories.make_organization(user)
        generation = factories.make_generation(organization=organization)
        other = factories.make_user()
        factories.make_membership(organization, other)
    scopes = ["generations:read"]
    keys = [Client(app, api_key_headers(app, organization, scopes=scopes)) for _ in range(3)]
    path = f"/generations/{generation.id}"

    async def scenario() -> None:
        waiting = []
        for key, suffix, headers in ((keys[0], "", {"prefer": "wait=30"}), (keys[1], "/events", {})):
            waiting.append(StreamingRequest(key, "GET", path + suffix, None, headers))
            await wait_until(lambda: len(app.change_hub) == len(waiting))
        for client in (keys[2], Client(app, auth_headers(app, user))):
            polled = await StreamingRequest(client, "GET", path, None, {"prefer": "wait=30"}).read_response()
            assert (polled.status, "preference-applied" in polled.headers) == (200, False)
            stream = await StreamingRequest(client, "GET", f"{path}/events", None, {}).read_response()
            assert (stream.status, stream.json()["code"]) == (503, "unavailable")
        colleague = StreamingRequest(Client(app, auth_headers(app, other)), "GET", f"{path}/events", None, {})
        await wait_until(lambda: len(app.change_hub) == 3)
        for each in (*waiting, colleague):
            each.disconnect()
        await wait_until(lambda: len(app.change_hub) == 0)

    async def run() -> None:
        async with enable_long_polling(app):
            await scenario()

    asyncio.run(run())


def test_s34_a_thread_that_computes_lets_others_run_every_half_millisecond() -> None:
    async def respond(_scope: Any, _receive: Any, _send: Any) -> None:
        raise NotImplementedError

    config = uvicorn.Config(respond, port=0, lifespan="off", log_config=None)
    intervals = []

    async def scenario() -> None:
        server = Server(
            config, on_started=lambda: intervals.append(sys.getswitchinterval()), drain=lambda: None
        )
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        await server.shutdown()

    before = sys.getswitchinterval()
    try:
        asyncio.run(scenario())
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()
    assert intervals == [pytest.approx(0.0005)]
