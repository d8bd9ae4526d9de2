"""Callbacks of the Compute API: signature, deduplication, and their effect on the generation.

A callback only makes the remote task due for the next poll and updates the progress.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from db.base import utc_now
from db.models import Generation, TaskCallback
from db.session import Database
from handlers.app import Application
from studio.generations.worker import callbacks
from studio.infrastructure.settings import DEVELOPMENT_WEBHOOK_SECRET, InvalidSettings, Settings
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import ClientResponse
from tests.support.servers.compute import signature_headers
from tools.servers.server import COMPUTE_WEBHOOK_SECRET

PATH = "/tasks/webhook"
LATER = timedelta(minutes=5)


@pytest.fixture
def awaiting_poll(database: Database) -> Generation:
    """Return a running generation whose remote task is polled in five minutes."""
    return factories.make_generation(
        status="running",
        started_at=utc_now(),
        lease_expires_at=utc_now() + LATER,
        remote_task_id="task_abc123",
        progress=10,
    )


def send_callback(
    client: Client, message_id: str = "msg_1", at: datetime | None = None, **payload: Any
) -> ClientResponse:
    content = {"event_type": "task_status_update", "task_id": "task_abc123", "status": "running", **payload}
    body = json.dumps(content).encode()
    headers = {"content-type": "application/json", **signature_headers(body, message_id, at)}
    return client("POST", PATH, body=body, headers=headers)


def load_generation(database: Database, generation: Generation) -> Generation:
    with database.transaction(write=False) as reading:
        found = select(Generation).where(Generation.id == generation.id)
        return reading.scalars(found.execution_options(populate_existing=True)).one()


def is_due(database: Database, generation: Generation) -> bool:
    due = load_generation(database, generation).lease_expires_at
    return due is not None and due <= utc_now()


def test_a_callback_makes_the_task_due_and_updates_the_progress(
    anonymous: Client, database: Database, awaiting_poll: Generation
) -> None:
    assert not is_due(database, awaiting_poll)
    response = send_callback(
        anonymous, progress=65.4, entity_id=str(awaiting_poll.id), gpu={"name": "something new"}
    )
    assert (response.status, response.body) == (204, b"")
    assert is_due(database, awaiting_poll)
    assert (
        load_generation(database, awaiting_poll).progress,
        load_generation(database, awaiting_poll).status,
    ) == (65, "running")


def test_s22_the_status_in_a_callback_is_ignored(
    anonymous: Client, database: Database, awaiting_poll: Generation
) -> None:
    for number, status in enumerate(("completed", "failed", "canceled", "nonsense", None)):
        assert send_callback(anonymous, f"msg_{number}", status=status, progress=100).status == 204
    assert (
        load_generation(database, awaiting_poll).status,
        load_generation(database, awaiting_poll).progress,
    ) == ("running", 99)


def test_s22_a_repeated_message_gets_the_same_response_and_has_no_effect(
    anonymous: Client, app: Application, database: Database, awaiting_poll: Generation
) -> None:
    first = send_callback(anonymous, progress=20)
    with database.transaction(write=True) as writing:
        writing.merge(awaiting_poll).lease_expires_at = utc_now() + LATER
    again = send_callback(anonymous, progress=20)
    assert (again.status, again.body) == (first.status, first.body)
    assert not is_due(database, awaiting_poll)
    assert send_callback(anonymous, "msg_2", progress=20).status == 204
    assert is_due(database, awaiting_poll)


def test_message_ids_are_deleted_after_the_retention_period(
    anonymous: Client, database: Database, awaiting_poll: Generation
) -> None:
    for number in (1, 2):
        send_callback(anonymous, f"msg_{number}")
    with database.transaction(write=True) as writing:
        old = writing.scalars(select(TaskCallback).where(TaskCallback.message_id == "msg_1")).one()
        old.created_at = utc_now() - 2 * callbacks.RETENTION
    callbacks.delete_old_callbacks(database)
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(TaskCallback.message_id)).all() == ["msg_2"]


@pytest.mark.parametrize(
    "unknown",
    [
        {"task_id": "task_of_another_tenant"},
        {"entity_id": "01990000-5eed-7000-8000-001200000099"},
        {"entity_id": "nonsense"},
    ],
)
def test_s22_callbacks_about_unknown_tasks_get_the_same_response(
    anonymous: Client, database: Database, awaiting_poll: Generation, unknown: dict[str, Any]
) -> None:
    assert send_callback(anonymous, **unknown, progress=90).status == 204
    assert not is_due(database, awaiting_poll)
    assert load_generation(database, awaiting_poll).progress == 10


@pytest.mark.parametrize("status", ["pending", "completed", "failed", "canceled", "canceling"])
def test_a_callback_for_a_generation_that_is_not_running_has_no_effect(
    anonymous: Client, database: Database, awaiting_poll: Generation, status: str
) -> None:
    with database.transaction(write=True) as writing:
        writing.merge(awaiting_poll).status = status
    assert send_callback(anonymous, progress=90).status == 204
    assert (
        load_generation(database, awaiting_poll).status,
        load_generation(database, awaiting_poll).progress,
    ) == (status, 10)


def forged_headers() -> dict[str, Callable[[dict[str, str]], dict[str, str]]]:
    """Return functions that make the headers of a valid message invalid, by description."""
    other = signature_headers(b"{}", "msg_1")["webhook-signature"]
    return {
        "unsigned": lambda headers: {},
        "no id": lambda headers: {**headers, "webhook-id": ""},
        "another id": lambda headers: {**headers, "webhook-id": "msg_2"},
        "another body's signature": lambda headers: {**headers, "webhook-signature": other},
        "no signature": lambda headers: {**headers, "webhook-signature": ""},
        "no base64": lambda headers: {**headers, "webhook-signature": "v1,%%%"},
        "no version": lambda headers: {**headers, "webhook-signature": "nonsense"},
        "another version": lambda headers: {
            **headers,
            "webhook-signature": headers["webhook-signature"].replace("v1,", "v2,"),
        },
        "no time": lambda headers: {**headers, "webhook-timestamp": "soon"},
        "not a number": lambda headers: {**headers, "webhook-timestamp": "nan"},
        "another time": lambda headers: {
            **headers,
            "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1),
        },
    }


@pytest.mark.parametrize("forgery", forged_headers())
def test_s22_a_forged_callback_is_rejected_and_changes_nothing(
    anonymous: Client, database: Database, awaiting_poll: Generation, forgery: str
) -> None:
    body = json.dumps({"event_type": "x", "task_id": "task_abc123", "progress": 90}).encode()
    headers = {
        "content-type": "application/json",
        **forged_headers()[forgery](signature_headers(body, "msg_1")),
    }
    response = anonymous("POST", PATH, body=body, headers=headers)
    assert (response.status, response.json()["code"]) == (401, "invalid_webhook_signature")
    assert not is_due(database, awaiting_poll)
    assert load_generation(database, awaiting_poll).progress == 10
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(TaskCallback)) == 0


@pytest.mark.parametrize("minutes", [-6, 6])
def test_s22_a_callback_with_a_past_or_future_timestamp_is_rejected(
    anonymous: Client, database: Database, awaiting_poll: Generation, minutes: int
) -> None:
    response = send_callback(anonymous, at=datetime.now(UTC) + timedelta(minutes=minutes))
    assert (response.status, response.json()["code"]) == (401, "invalid_webhook_signature")
    assert not is_due(database, awaiting_poll)


def test_s22_the_signature_covers_the_exact_bytes_of_the_body(
    anonymous: Client, database: Database, awaiting_poll: Generation
) -> None:
    body = b'{ "task_id":"task_abc123",\n "event_type" : "x", "metadata": {"caf\xc3\xa9": 1.50} }'
    headers = {"content-type": "application/json", **signature_headers(body, "msg_1")}
    assert anonymous("POST", PATH, body=body, headers=headers).status == 204
    assert is_due(database, awaiting_poll)
    changed = body.replace(b"1.50", b"1.5")
    assert anonymous("POST", PATH, body=changed, headers=headers).status == 401


def test_s22_without_a_secret_every_callback_is_rejected() -> None:
    with pytest.raises(callbacks.InvalidWebhookSignature):
        callbacks.require_signature(None, b"{}", signature_headers(b"{}", "msg_1"))


def test_the_callback_secret_has_a_default_only_in_development() -> None:
    environment = {"SARTIQ_ENV": "test", "SECRET_KEY": "0123456789abcdef0123456789abcdef"}
    assert Settings.from_environment({}).compute_webhook_secret == DEVELOPMENT_WEBHOOK_SECRET
    assert Settings.from_environment(environment).compute_webhook_secret is None
    settings = Settings.from_environment({**environment, "COMPUTE_WEBHOOK_SECRET": COMPUTE_WEBHOOK_SECRET})
    assert settings.compute_webhook_secret == COMPUTE_WEBHOOK_SECRET
    assert COMPUTE_WEBHOOK_SECRET not in repr(settings)
    for invalid in (DEVELOPMENT_WEBHOOK_SECRET, "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_%"):
        with pytest.raises(InvalidSettings, match="COMPUTE_WEBHOOK_SECRET"):
            Settings.from_environment({**environment, "COMPUTE_WEBHOOK_SECRET": invalid})
