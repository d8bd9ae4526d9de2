"""Server-sent events of a generation: content, resumption and end of the stream."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

import httpx
import pytest
from httpx_sse import EventSource
from sqlalchemy import delete, update

from db.models import Generation, TokenFamily
from db.session import Database
from handlers.app import Application
from handlers.pipeline.middleware import long_polling
from tests.api.test_long_polling import (
    advance_generation,
    generation_id,
    open_request,
    wait_for_listener,
)
from tests.support import factories
from tests.support.factories.catalog import Customer
from tests.support.streaming import StreamingRequest, run_with_long_polling

__all__ = ["generation_id"]


def open_stream(customer: Customer, generation_id: UUID, **headers: str) -> StreamingRequest:
    return open_request(customer.client, f"/generations/{generation_id}/events", **headers)


def summarize_events(stream: StreamingRequest) -> list[tuple[str, str, int]]:
    return [(event["event"], event["status"], event["progress"]) for event in stream.events]


def test_a_stream_sends_the_state_then_each_change_and_ends_with_the_final_one(
    customer: Customer, database: Database, app: Application, generation_id: UUID
) -> None:
    async def scenario_steps() -> None:
        stream = open_stream(customer, generation_id)
        await stream.wait_until(lambda: len(stream.events) == 1)
        for states, progress in ((["running"], None), ([], 40), (["completed"], None)):
            before = len(stream.events)
            await asyncio.to_thread(advance_generation, database, generation_id, *states, progress=progress)
            await stream.wait_until(lambda before=before: len(stream.events) > before)
        response = await stream.read_response()
        assert summarize_events(stream) == [
            ("status", "pending", 0),
            ("status", "running", 0),
            ("progress", "running", 40),
            ("status", "completed", 100),
        ]
        assert stream.events[-1] == {
            "event": "status",
            "generation_id": str(generation_id),
            "revision": 3,
            "status": "completed",
            "progress": 100,
            "queue_position": None,
            "attempts": 0,
            "predictions_count": 0,
            "error": None,
        }
        assert stream.events[0]["queue_position"] >= 1
        assert response.body.startswith(b"retry: 2000\n")
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"]
        assert "content-length" not in response.headers

    run_with_long_polling(app, scenario_steps)


def test_a_stream_resumes_after_the_last_event_id_and_204_ends_reconnects(
    customer: Customer, database: Database, app: Application, generation_id: UUID
) -> None:
    async def scenario_steps() -> None:
        await asyncio.to_thread(advance_generation, database, generation_id, "running", progress=40)
        stream = open_stream(customer, generation_id, last_event_id="2")
        await wait_for_listener(app)
        await asyncio.to_thread(advance_generation, database, generation_id, "completed")
        await stream.read_response()
        assert summarize_events(stream) == [("status", "completed", 100)]
        assert read_with_httpx_sse(stream.body) == [("status", "3")]
        missed_the_end = open_stream(customer, generation_id, last_event_id="2")
        await missed_the_end.read_response()
        assert summarize_events(missed_the_end) == [("status", "completed", 100)]
        nothing_more = await open_stream(customer, generation_id, last_event_id="3").read_response()
        assert (nothing_more.status, nothing_more.body) == (204, b"")
        nonsense = open_stream(customer, generation_id, last_event_id="three")
        await nonsense.read_response()
        assert len(nonsense.events) == 1

    run_with_long_polling(app, scenario_steps)


def test_head_returns_the_headers_of_a_stream_without_starting_it(
    customer: Customer, app: Application, generation_id: UUID
) -> None:
    async def scenario_steps() -> None:
        path = f"/generations/{generation_id}/events"
        response = await open_request(customer.client, path, "HEAD").read_response()
        assert (response.status, response.headers["content-type"], response.body) == (
            200,
            "text/event-stream",
            b"",
        )

    run_with_long_polling(app, scenario_steps)


def read_with_httpx_sse(body: bytes) -> list[tuple[str, str]]:
    """Return the names and ids of the events that the most used Python client yields for a stream."""
    headers = {"content-type": "text/event-stream"}
    source = EventSource(httpx.Response(200, headers=headers, content=body))
    return [(event.event, event.id) for event in source.iter_sse()]


def test_a_heartbeat_is_a_comment_that_no_client_takes_for_an_event(
    customer: Customer,
    database: Database,
    app: Application,
    generation_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(long_polling, "HEARTBEAT_SECONDS", 0.1)

    async def scenario_steps() -> None:
        stream = open_stream(customer, generation_id)
        # Without empty lines: httpx-sse would yield an event without data for each.
        await stream.wait_until(lambda: stream.body.endswith(b"}\n\n:\n:\n"))
        await asyncio.to_thread(advance_generation, database, generation_id, "running")
        await stream.wait_until(lambda: len(stream.events) == 2)
        await stream.wait_until(lambda: stream.body.endswith(b"}\n\n:\n"))
        stream.disconnect()
        await asyncio.wait_for(stream.task, 5)
        assert read_with_httpx_sse(stream.body) == [("status", "0"), ("status", "1")]

    run_with_long_polling(app, scenario_steps)


@pytest.mark.parametrize("reason", ["signed out", "deleted"])
def test_a_stream_ends_when_its_generation_is_deleted_or_the_caller_is_signed_out(
    reason: str,
    customer: Customer,
    database: Database,
    app: Application,
    generation_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(long_polling, "HEARTBEAT_SECONDS", 0.2)

    def remove_access() -> None:
        with database.transaction(write=True) as writing:
            if reason == "deleted":
                writing.execute(delete(Generation).where(Generation.id == generation_id))
            else:
                writing.execute(update(TokenFamily).values(revoked_at=factories.utc_now()))

    async def scenario_steps() -> None:
        stream = open_stream(customer, generation_id)
        await wait_for_listener(app)
        await asyncio.to_thread(remove_access)
        await stream.read_response()
        assert summarize_events(stream) == [("status", "pending", 0)]

    run_with_long_polling(app, scenario_steps)


def test_an_event_that_violates_the_contract_is_not_sent(
    customer: Customer,
    database: Database,
    app: Application,
    generation_id: UUID,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def store_invalid_progress() -> None:
        with database.transaction(write=True) as writing:
            changes = {"progress": 101, "revision": Generation.revision + 1}
            writing.execute(update(Generation).where(Generation.id == generation_id).values(changes))

    async def scenario_steps() -> None:
        stream = open_stream(customer, generation_id)
        await stream.wait_until(lambda: stream.events)
        await asyncio.to_thread(store_invalid_progress)
        await stream.read_response()
        assert summarize_events(stream) == [("status", "pending", 0)]
        rejected = await open_stream(customer, generation_id).read_response()
        assert (rejected.status, rejected.json()["code"]) == (500, "internal_error")

    run_with_long_polling(app, scenario_steps)
    violations = [record for record in caplog.records if "contract violation" in record.message]
    assert [record.levelno for record in violations] == [logging.ERROR] * 2


def test_all_streams_end_when_the_server_stops(
    customer: Customer, app: Application, generation_id: UUID
) -> None:
    async def scenario_steps() -> None:
        streams: list[Any] = [open_stream(customer, generation_id) for _ in range(3)]
        long_poll = open_request(customer.client, f"/generations/{generation_id}", prefer="wait=30")
        for stream in streams:
            await stream.wait_until(lambda stream=stream: stream.events)
        await asyncio.to_thread(app.change_hub.close)
        for stream in streams:
            await stream.read_response()
        assert (await long_poll.read_response()).json()["status"] == "pending"
        late = open_stream(customer, generation_id)
        await late.read_response()
        assert len(late.events) == 1

    run_with_long_polling(app, scenario_steps)
