"""Waiting for a generation: `Prefer: wait`, alone and with If-None-Match, and what may happen meanwhile."""

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
from db.session import Database, session
from handlers.app import Application
from handlers.contract.waiting import preferred_wait
from studio import lifecycle, watching
from tests import factories
from tests.api.catalogue import House
from tests.api.conftest import Client
from tests.api.visiting import Visit, visiting
from tests.contract.mini.asking import without_limits
from tests.production import Production


@pytest.fixture
def generation_id(house: House, database: Database) -> UUID:
    """A pending generation of the house."""
    with database.transaction(write=True):
        return factories.make_generation(organization=house.organization).id


def move(database: Database, generation_id: UUID, *states: str, progress: int | None = None) -> None:
    """Let a generation go through these states, then to this progress, as a worker does."""
    with database.transaction(write=True):
        statement = select(Generation).where(Generation.id == generation_id).with_for_update(of=Generation)
        generation = session().scalars(statement).one()
        for state in states:
            lifecycle.advance(generation, state)
        if progress is not None:
            generation.progress, generation.revision = progress, generation.revision + 1


def visit(client: Client, path: str, method: str = "GET", as_json: Any = None, **headers: str) -> Visit:
    return Visit(
        client, method, path, as_json, {name.replace("_", "-"): value for name, value in headers.items()}
    )


async def somebody_waits(app: Application) -> None:
    async with asyncio.timeout(10):
        while not len(app.watchers):
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
def test_a_preference_is_read_as_rfc_7240_has_it_and_else_ignored(header: str, seconds: int | None) -> None:
    assert preferred_wait(Headers({"prefer": header}), 60) == seconds


def test_who_waits_is_told_at_once_when_the_generation_is_over(
    house: House, database: Database, app: Application, generation_id: UUID
) -> None:
    async def story() -> None:
        began = time.monotonic()
        waiting = visit(house.client, f"/generations/{generation_id}", prefer="wait=30")
        await somebody_waits(app)
        await asyncio.to_thread(move, database, generation_id, "running", progress=40)
        await asyncio.sleep(2 * watching.POLL_SECONDS)
        assert not waiting.served.done()
        await asyncio.to_thread(move, database, generation_id, "completed")
        reply = await waiting.reply()
        assert (reply.status, reply.json()["status"]) == (200, "completed")
        assert reply.headers["preference-applied"] in ("wait=0", "wait=1", "wait=2")
        assert time.monotonic() - began < 10
        again = visit(house.client, f"/generations/{generation_id}", prefer="wait=30")
        assert without_limits((await again.reply()).headers) == without_limits(reply.headers) | {
            "preference-applied": "wait=0",
            "x-request-id": (await again.reply()).headers["x-request-id"],
        }

    visiting(app, story)


def test_a_wait_ends_when_its_time_is_up_and_tells_how_long_it_was(
    house: House, app: Application, generation_id: UUID
) -> None:
    async def story() -> None:
        reply = await visit(house.client, f"/generations/{generation_id}", prefer="wait=1").reply()
        assert (reply.status, reply.json()["status"]) == (200, "pending")
        assert reply.headers["preference-applied"] == "wait=1"
        plain = await visit(house.client, f"/generations/{generation_id}").reply()
        assert "preference-applied" not in plain.headers
        assert plain.body == reply.body

    visiting(app, story)


def test_with_a_tag_that_still_holds_a_wait_ends_at_any_change(
    house: House, database: Database, app: Application, generation_id: UUID
) -> None:
    path = f"/generations/{generation_id}"

    async def story() -> None:
        tag = (await visit(house.client, path).reply()).headers["etag"]
        same = await visit(house.client, path, if_none_match=tag, prefer="wait=1").reply()
        assert (same.status, same.headers["preference-applied"], same.body) == (304, "wait=1", b"")
        waiting = visit(house.client, path, if_none_match=tag, prefer="wait=30")
        await somebody_waits(app)
        await asyncio.to_thread(move, database, generation_id, "running")
        changed = await waiting.reply()
        assert (changed.status, changed.json()["status"]) == (200, "running")
        late = await visit(house.client, path, if_none_match=tag, prefer="wait=30").reply()
        assert (late.status, late.headers["preference-applied"]) == (200, "wait=0")

    visiting(app, story)


def test_who_loses_the_row_or_the_session_while_waiting_is_refused_at_the_end(
    house: House, database: Database, app: Application, client_of: Callable[..., Client], generation_id: UUID
) -> None:
    member, other = factories.make_user(), factories.make_user()
    for user in (member, other):
        factories.make_membership(house.organization, user)
    path = f"/generations/{generation_id}"

    def lose() -> None:
        with database.transaction(write=True) as writing:
            writing.execute(delete(Membership).where(Membership.user_id == member.id))
            writing.execute(
                update(TokenFamily)
                .where(TokenFamily.user_id == other.id)
                .values(revoked_at=factories.utc_now())
            )
            writing.execute(delete(Membership).where(Membership.user_id == member.id))

    async def story() -> None:
        removed = visit(client_of(member), path, prefer="wait=30")
        revoked = visit(client_of(other), path, prefer="wait=30")
        await somebody_waits(app)
        await asyncio.to_thread(lose)
        await asyncio.to_thread(move, database, generation_id, "running", "completed")
        assert (await removed.reply()).json()["code"] == "not_found"
        assert (await revoked.reply()).json()["code"] == "invalid_token"

    visiting(app, story)


def test_who_leaves_while_waiting_takes_up_no_place(
    house: House, app: Application, generation_id: UUID
) -> None:
    async def story() -> None:
        waiting = visit(house.client, f"/generations/{generation_id}", prefer="wait=30")
        await somebody_waits(app)
        waiting.leave()
        await asyncio.wait_for(waiting.served, 5)
        assert waiting.body == b""

    visiting(app, story)


def test_an_order_that_waits_is_answered_with_the_generation_as_it_is_then(
    production: Production, client_of: Callable[..., Client], database: Database, app: Application
) -> None:
    client = client_of(production.owner)
    order = {"product_id": str(production.product.id), "width": 96, "height": 128}
    path = f"/generations/?organization_id={production.organization.id}"

    async def story() -> None:
        waiting = visit(client, path, "POST", order, prefer="respond-async, wait=30")
        await somebody_waits(app)
        [generation_id] = app.watchers.watched()
        await asyncio.to_thread(move, database, generation_id, "running", "completed")
        reply = await waiting.reply()
        assert (reply.status, reply.json()["status"]) == (202, "completed")
        assert reply.headers["location"] == f"/api/v1/generations/{generation_id}"
        assert "preference-applied" in reply.headers
        fetched = await visit(client, f"/generations/{generation_id}").reply()
        assert fetched.body == reply.body

    visiting(app, story)


def test_an_order_stays_accepted_when_its_caller_is_signed_out_meanwhile(
    production: Production, client_of: Callable[..., Client], database: Database, app: Application
) -> None:
    client = client_of(production.owner)

    def sign_out() -> None:
        with database.transaction(write=True) as writing:
            writing.execute(update(TokenFamily).values(revoked_at=factories.utc_now()))

    async def story() -> None:
        path = f"/shots/{production.shot.id}/generate"
        waiting = visit(client, path, "POST", {"num_predictions": 1}, prefer="wait=30")
        await somebody_waits(app)
        [generation_id] = app.watchers.watched()
        await asyncio.to_thread(sign_out)
        await asyncio.to_thread(move, database, generation_id, "running", "completed")
        reply = await waiting.reply()
        assert (reply.status, reply.json()["status"]) == (202, "pending")

    visiting(app, story)


def test_where_there_is_no_room_or_no_end_in_sight_the_answer_comes_at_once(
    house: House, app: Application, generation_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/generations/{generation_id}"

    async def story() -> None:
        monkeypatch.setattr(watching, "MAX_WATCHERS_OF_ONE", 0)
        full = await visit(house.client, path, prefer="wait=30").reply()
        assert (full.status, "preference-applied" in full.headers) == (200, False)
        refused = await visit(house.client, f"{path}/events").reply()
        assert (refused.status, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0

    visiting(app, story)


@pytest.mark.parametrize(
    "failure", [RuntimeError("a defect"), OperationalError("SELECT 1", {}, Exception("connection refused"))]
)
def test_a_failing_database_is_asked_again(
    failure: Exception,
    house: House,
    database: Database,
    app: Application,
    generation_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, failures = watching.read_changed, [failure]

    def read_or_fail(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(watching, "SECONDS_AFTER_FAILURE", 0.01)
    monkeypatch.setattr(watching, "read_changed", read_or_fail)

    async def story() -> None:
        waiting = visit(house.client, f"/generations/{generation_id}", prefer="wait=30")
        await somebody_waits(app)
        await asyncio.to_thread(move, database, generation_id, "running", "completed")
        assert (await waiting.reply()).json()["status"] == "completed"
        assert not failures

    visiting(app, story)


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, as a WSGI host has it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_wsgi_host_answers_without_waiting(
    house: House, app: Application, generation_id: UUID, other_loop: asyncio.AbstractEventLoop
) -> None:
    application = ASGIMiddleware(app, loop=other_loop)

    def get(path: str, **headers: str) -> tuple[str, dict[str, str], bytes]:
        told: list[Any] = []
        environ = {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": f"/api/v1{path}", "QUERY_STRING": "",
            "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
            "HTTP_AUTHORIZATION": house.client.headers["authorization"], **headers,
        }  # fmt: skip
        body = b"".join(application(environ, lambda *start: told.extend(start)))
        return told[0], dict(told[1]), body

    status, headers, _ = get(f"/generations/{generation_id}", HTTP_PREFER="wait=30")
    assert status == "200 OK"
    assert "preference-applied" not in headers
    status, headers, body = get(f"/generations/{generation_id}/events")
    assert (status, headers["content-type"]) == ("200 OK", "text/event-stream")
    assert body.count(b"data: ") == 1
