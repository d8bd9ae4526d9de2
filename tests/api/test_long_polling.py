"""Long polling of generations: `Prefer: wait`, alone and with If-None-Match."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from a2wsgi import ASGIMiddleware
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers

from db.models import Generation, Membership, TokenFamily
from db.session import Database, current_session
from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from handlers.pipeline.middleware.long_polling import find_preferred_wait
from studio.generations import lifecycle, watch
from studio.infrastructure import change_hub
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import drop_rate_limit_headers
from tests.support.factories.catalog import Customer
from tests.support.rejections import Rejections
from tests.support.scenarios import PhotographedProduct
from tests.support.streaming import StreamingRequest, run_with_long_polling


@pytest.fixture
def generation_id(customer: Customer, database: Database) -> UUID:
    """Return the id of a pending generation of the customer's organization."""
    with database.transaction(write=True):
        return factories.make_generation(organization=customer.organization).id


def advance_generation(
    database: Database, generation_id: UUID, *states: str, progress: int | None = None
) -> None:
    """Move a generation through these states, then to this progress, as a worker does."""
    with database.transaction(write=True):
        statement = select(Generation).where(Generation.id == generation_id).with_for_update(of=Generation)
        generation = current_session().scalars(statement).one()
        for state in states:
            lifecycle.transition(generation, state)
        if progress is not None:
            generation.progress, generation.revision = progress, generation.revision + 1


def open_request(
    client: Client, path: str, method: str = "GET", as_json: Any = None, **headers: str
) -> StreamingRequest:
    return StreamingRequest(
        client, method, path, as_json, {name.replace("_", "-"): value for name, value in headers.items()}
    )


async def wait_for_listener(app: Application) -> None:
    async with asyncio.timeout(10):
        while not len(app.change_hub):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=7", 7),
        ("WAIT = 7", 7),
        ('wait="7"', 7),
        ("respond-async, wait=7; why=not", 7),
        ("wait=7, wait=9", 7),
        ("wait=0", 0),
        ("wait=61", 60),
        ("wait=99999999999999999999", 60),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=seven", None),
        ("wait=²", None),
        ('why="a, wait=9", wait=7', 7),
        ("wait=x, wait=7", None),
        ("waiting=7", None),
        ("respond-async", None),
        (",;=", None),
        ("", None),
    ],
)
def test_the_wait_preference_is_parsed_by_rfc_7240_and_ignored_if_malformed(
    header: str, seconds: int | None
) -> None:
    assert find_preferred_wait(Headers({"prefer": header}), 60) == seconds


def test_a_long_poll_returns_as_soon_as_the_generation_ends(
    customer: Customer, database: Database, app: Application, generation_id: UUID
) -> None:
    async def scenario_steps() -> None:
        began = time.monotonic()
        waiting = open_request(customer.client, f"/generations/{generation_id}", prefer="wait=30")
        await wait_for_listener(app)
        await asyncio.to_thread(advance_generation, database, generation_id, "running", progress=40)
        await asyncio.sleep(2 * change_hub.POLL_SECONDS)
        assert not waiting.task.done()
        await asyncio.to_thread(advance_generation, database, generation_id, "completed")
        response = await waiting.read_response()
        assert (response.status, response.json()["status"]) == (200, "completed")
        assert response.headers["preference-applied"] in ("wait=0", "wait=1", "wait=2")
        assert time.monotonic() - began < 10
        again = open_request(customer.client, f"/generations/{generation_id}", prefer="wait=30")
        assert drop_rate_limit_headers((await again.read_response()).headers) == drop_rate_limit_headers(
            response.headers
        ) | {
            "preference-applied": "wait=0",
            "x-request-id": (await again.read_response()).headers["x-request-id"],
        }

    run_with_long_polling(app, scenario_steps)


def test_a_wait_ends_after_its_time_and_returns_its_length(
    customer: Customer, app: Application, generation_id: UUID
) -> None:
    async def scenario_steps() -> None:
        response = await open_request(
            customer.client, f"/generations/{generation_id}", prefer="wait=1"
        ).read_response()
        assert (response.status, response.json()["status"]) == (200, "pending")
        assert response.headers["preference-applied"] == "wait=1"
        plain = await open_request(customer.client, f"/generations/{generation_id}").read_response()
        assert "preference-applied" not in plain.headers
        assert plain.body == response.body

    run_with_long_polling(app, scenario_steps)


def test_with_a_current_etag_a_wait_ends_at_any_change(
    customer: Customer, database: Database, app: Application, generation_id: UUID
) -> None:
    path = f"/generations/{generation_id}"

    async def scenario_steps() -> None:
        tag = (await open_request(customer.client, path).read_response()).headers["etag"]
        same = await open_request(customer.client, path, if_none_match=tag, prefer="wait=1").read_response()
        assert (same.status, same.headers["preference-applied"], same.body) == (304, "wait=1", b"")
        waiting = open_request(customer.client, path, if_none_match=tag, prefer="wait=30")
        await wait_for_listener(app)
        await asyncio.to_thread(advance_generation, database, generation_id, "running")
        changed = await waiting.read_response()
        assert (changed.status, changed.json()["status"]) == (200, "running")
        late = await open_request(customer.client, path, if_none_match=tag, prefer="wait=30").read_response()
        assert (late.status, late.headers["preference-applied"]) == (200, "wait=0")

    run_with_long_polling(app, scenario_steps)


def test_a_caller_that_loses_access_or_session_while_waiting_gets_an_error(
    customer: Customer,
    database: Database,
    app: Application,
    client_for: Callable[..., Client],
    generation_id: UUID,
) -> None:
    member, other = factories.make_user(), factories.make_user()
    for user in (member, other):
        factories.make_membership(customer.organization, user)
    path = f"/generations/{generation_id}"

    def revoke_access() -> None:
        with database.transaction(write=True) as writing:
            writing.execute(delete(Membership).where(Membership.user_id == member.id))
            writing.execute(
                update(TokenFamily)
                .where(TokenFamily.user_id == other.id)
                .values(revoked_at=factories.utc_now())
            )
            writing.execute(delete(Membership).where(Membership.user_id == member.id))

    async def scenario_steps() -> None:
        removed = open_request(client_for(member), path, prefer="wait=30")
        revoked = open_request(client_for(other), path, prefer="wait=30")
        await wait_for_listener(app)
        await asyncio.to_thread(revoke_access)
        await asyncio.to_thread(advance_generation, database, generation_id, "running", "completed")
        assert (await removed.read_response()).json()["code"] == "not_found"
        assert (await revoked.read_response()).json()["code"] == "invalid_token"

    run_with_long_polling(app, scenario_steps)


def test_a_client_that_disconnects_while_waiting_frees_its_slot(
    customer: Customer, app: Application, generation_id: UUID
) -> None:
    async def scenario_steps() -> None:
        waiting = open_request(customer.client, f"/generations/{generation_id}", prefer="wait=30")
        await wait_for_listener(app)
        waiting.disconnect()
        await asyncio.wait_for(waiting.task, 5)
        assert waiting.body == b""

    run_with_long_polling(app, scenario_steps)


def test_a_post_that_waits_returns_the_current_generation(
    scenario: PhotographedProduct, client_for: Callable[..., Client], database: Database, app: Application
) -> None:
    client = client_for(scenario.owner)
    body = {"product_id": str(scenario.product.id), "width": 96, "height": 128}
    path = f"/generations/?organization_id={scenario.organization.id}"

    async def scenario_steps() -> None:
        waiting = open_request(client, path, "POST", body, prefer="respond-async, wait=30")
        await wait_for_listener(app)
        [generation_id] = app.change_hub.watched_ids()
        await asyncio.to_thread(advance_generation, database, generation_id, "running", "completed")
        response = await waiting.read_response()
        assert (response.status, response.json()["status"]) == (202, "completed")
        assert response.headers["location"] == f"/api/v1/generations/{generation_id}"
        assert "preference-applied" in response.headers
        fetched = await open_request(client, f"/generations/{generation_id}").read_response()
        assert fetched.body == response.body

    run_with_long_polling(app, scenario_steps)


def test_a_post_stays_accepted_if_its_caller_is_signed_out_while_waiting(
    scenario: PhotographedProduct, client_for: Callable[..., Client], database: Database, app: Application
) -> None:
    client = client_for(scenario.owner)

    def sign_out() -> None:
        with database.transaction(write=True) as writing:
            writing.execute(update(TokenFamily).values(revoked_at=factories.utc_now()))

    async def scenario_steps() -> None:
        path = f"/shots/{scenario.shot.id}/generate"
        waiting = open_request(client, path, "POST", {"num_predictions": 1}, prefer="wait=30")
        await wait_for_listener(app)
        [generation_id] = app.change_hub.watched_ids()
        await asyncio.to_thread(sign_out)
        await asyncio.to_thread(advance_generation, database, generation_id, "running", "completed")
        response = await waiting.read_response()
        assert (response.status, response.json()["status"]) == (202, "pending")

    run_with_long_polling(app, scenario_steps)


def test_long_polling_returns_at_once_at_the_watcher_limit(
    customer: Customer,
    app: Application,
    generation_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    rejections: Rejections,
) -> None:
    path = f"/generations/{generation_id}"

    async def scenario_steps() -> None:
        monkeypatch.setattr(change_hub, "MAX_LISTENERS_PER_ACCOUNT", 0)
        full = await open_request(customer.client, path, prefer="wait=30").read_response()
        assert (full.status, "preference-applied" in full.headers) == (200, False)
        rejected = await open_request(customer.client, f"{path}/events").read_response()
        assert (rejected.status, rejected.json()["code"]) == (503, "unavailable")
        assert int(rejected.headers["retry-after"]) > 0

    run_with_long_polling(app, scenario_steps)
    assert rejections.take() == {(503, "unavailable", Limit.LONG_POLL)}


@pytest.mark.parametrize(
    "failure", [RuntimeError("a defect"), OperationalError("SELECT 1", {}, Exception("connection refused"))]
)
def test_polling_retries_after_a_database_error(
    failure: Exception,
    customer: Customer,
    database: Database,
    app: Application,
    generation_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, failures = watch.GenerationState.load_changed, [failure]

    def read_or_fail(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(change_hub, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(watch.GenerationState, "load_changed", staticmethod(read_or_fail))

    async def scenario_steps() -> None:
        waiting = open_request(customer.client, f"/generations/{generation_id}", prefer="wait=30")
        await wait_for_listener(app)
        await asyncio.to_thread(advance_generation, database, generation_id, "running", "completed")
        assert (await waiting.read_response()).json()["status"] == "completed"
        assert not failures

    run_with_long_polling(app, scenario_steps)


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Yield an event loop that runs in another thread, as under a WSGI host."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_wsgi_host_responds_without_waiting(
    customer: Customer, app: Application, generation_id: UUID, other_loop: asyncio.AbstractEventLoop
) -> None:
    application = ASGIMiddleware(app, loop=other_loop)

    def get(path: str, **headers: str) -> tuple[str, dict[str, str], bytes]:
        started: list[Any] = []
        environ = {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": f"/api/v1{path}", "QUERY_STRING": "",
            "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
            "HTTP_AUTHORIZATION": customer.client.headers["authorization"], **headers,
        }  # fmt: skip
        body = b"".join(application(environ, lambda *start: started.extend(start)))
        return started[0], dict(started[1]), body

    status, headers, _ = get(f"/generations/{generation_id}", HTTP_PREFER="wait=30")
    assert status == "200 OK"
    assert "preference-applied" not in headers
    status, headers, body = get(f"/generations/{generation_id}/events")
    assert (status, headers["content-type"]) == ("200 OK", "text/event-stream")
    assert body.count(b"data: ") == 1
