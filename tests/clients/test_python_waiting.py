"""Tests of waiting and of event streams, with both clients, against a server that scripts the states."""

from __future__ import annotations

from typing import Any

import pytest

import sartiq
from sartiq import _retries, _waiting, client, models
from sartiq._model import ResponseInfo
from tests.clients.clients_of_both_kinds import KINDS, Kind, run_step
from tests.clients.scripted_server import Answer, Drop, ScriptedServer, problem

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retries, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)


def build_export(status: str, progress: int = 0, **changes: Any) -> dict[str, Any]:
    """Return an export in a state."""
    completed_at = None if status in ("pending", "running", "paused") else "2026-11-02T09:16:00Z"
    return {
        "id": "e1", "created_at": "2026-11-02T09:15:00Z", "updated_at": "2026-11-02T09:15:00Z",
        "owner_id": "u1", "organization_id": None, "shooting_id": "s1", "name_template": "{sku}",
        "status": status, "progress": progress, "attempts": 1, "predictions_count": 1, "file_size": None,
        "content_hash": None, "completed_at": completed_at, "expires_at": None, "error": None,
        "destination_id": None, "delivery": None,
        "urls": {"self": "/e1", "file": "/e1/file", "shooting": "/s1"}, **changes,
    }  # fmt: skip


def wait(kind: Kind, server: ScriptedServer, **options: Any) -> Any:
    """Wait for the export that was just created."""
    job = models.Export.model_validate(build_export("pending"))
    return run_step(kind, lambda client: client.wait(job, **options), base_url=server.url, token="sk_test")


def test_waiting_reports_each_state_once(scripted_server: ScriptedServer, kind: Kind) -> None:
    seen: list[int] = []
    scripted_server.answer_with(
        Answer(200, build_export("running", 40), {"ETag": '"1"'}),
        Answer(304, None, {"ETag": '"1"'}),
        Answer(200, build_export("completed", 100), {"ETag": '"2"'}),
    )
    job = wait(kind, scripted_server, on_progress=lambda state: seen.append(state.progress))
    assert (job.status, seen) == ("completed", [40, 100])
    tags = [request.headers.get("if-none-match") for request in scripted_server.requests]
    assert tags == [None, '"1"', '"1"']


def test_a_job_that_fails_is_an_error_with_its_cause(scripted_server: ScriptedServer, kind: Kind) -> None:
    cause = {"category": "storage", "message": "The disk is full.", "retryable": True}
    scripted_server.answer_with(Answer(200, build_export("failed", error=cause)))
    with pytest.raises(sartiq.JobFailedError, match=r"Export e1 failed: The disk is full\.") as raised:
        wait(kind, scripted_server)
    assert raised.value.resource.error.category == "storage"


def test_waiting_ends_at_its_time_out(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(Answer(200, build_export("running", 40)))
    with pytest.raises(sartiq.WaitTimeoutError, match=r"Export e1 is running after 0\.1 seconds; it cont"):
        wait(kind, scripted_server, timeout=0.1)


def test_waiting_outlasts_a_restart_of_the_server(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(
        Drop(), problem(503, "unavailable", Retry_After="0"), Answer(200, build_export("completed", 100))
    )
    job = models.Export.model_validate(build_export("pending"))
    options = {"base_url": scripted_server.url, "token": "sk_test", "max_retries": 0}
    assert run_step(kind, lambda client: client.wait(job), **options).status == "completed"


def test_waiting_ends_when_the_server_does_not_come_back(
    scripted_server: ScriptedServer, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_waiting, "LONGEST_OUTAGE", 0.05)
    scripted_server.answer_with(Drop())
    with pytest.raises(sartiq.errors.APIConnectionError):
        wait(kind, scripted_server, timeout=60)


def test_waiting_ends_at_once_at_an_error_of_the_server(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(problem(500, "internal_error"))
    with pytest.raises(sartiq.errors.ServerError):
        wait(kind, scripted_server)
    assert len(scripted_server.requests) == 1


def test_a_resource_that_does_not_end_cannot_be_waited_for(
    scripted_server: ScriptedServer, kind: Kind
) -> None:
    options = {"base_url": scripted_server.url, "token": "sk_test"}
    with pytest.raises(TypeError, match="takes a generation, an export or an import, not ResponseInfo"):
        run_step(kind, lambda client: client.wait(ResponseInfo(200, {})), **options)


def test_a_status_may_be_newer_than_the_client(scripted_server: ScriptedServer, kind: Kind) -> None:
    scripted_server.answer_with(Answer(200, build_export("paused")), Answer(200, build_export("lost")))
    with pytest.raises(sartiq.JobFailedError, match="Export e1 is lost"):
        wait(kind, scripted_server)
    assert len(scripted_server.requests) == 2


def build_event(revision: int, status: str, progress: int) -> bytes:
    """Return one server-sent event."""
    state = models.GenerationEvent(
        generation_id="g1", revision=revision, status=status, progress=progress, queue_position=None,
        attempts=1, predictions_count=0, error=None,
    )  # fmt: skip
    return f"event: status\nid: {revision}\ndata: {state.model_dump_json()}\n\n".encode()


async def collect_async(client: Any) -> list[tuple[str, int]]:
    events = client.generations.stream_generation_events("g1")
    return [(event.status, event.progress) async for event in events]


def collect(client: Any) -> list[tuple[str, int]]:
    return [(event.status, event.progress) for event in client.generations.stream_generation_events("g1")]


def test_an_event_stream_that_breaks_off_continues_after_the_last_event(
    scripted_server: ScriptedServer, kind: Kind
) -> None:
    stream = {"Content-Type": "text/event-stream"}
    first = build_event(1, "running", 10) + build_event(2, "running", 40)
    scripted_server.answer_with(
        Answer(200, first, stream, announced=10_000),
        problem(503, "unavailable", Retry_After="0"),
        Answer(200, build_event(3, "completed", 100), stream),
        Answer(204),
    )
    events = run_step(kind, collect if kind == "sync" else collect_async,
                      base_url=scripted_server.url, token="sk_test")  # fmt: skip
    assert events == [("running", 10), ("running", 40), ("completed", 100)]
    assert [request.headers.get("last-event-id") for request in scripted_server.requests] == [
        None, "2", "2", "3",
    ]  # fmt: skip
