"""Call-backs of a Compute API: genuine ones count, once each, and say only that there is news."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from db.base import utc_now
from db.models import Generation, TaskCallback, User
from db.session import Database
from handlers.app import Application
from studio.jobs import callbacks
from studio.settings import DEVELOPMENT_WEBHOOK_SECRET, Settings, SettingsRefused
from tests import factories
from tests.api.conftest import Client
from tests.compute_server import signature
from tests.contract.mini.asking import Reply
from tests.e2e.server import COMPUTE_WEBHOOK_SECRET

PATH = "/tasks/webhook"
LATER = timedelta(minutes=5)


@pytest.fixture
def nobody(client_of: Callable[[User | None], Client]) -> Client:
    return client_of(None)


@pytest.fixture
def parked(database: Database) -> Generation:
    """A generation whose task will be looked at in five minutes."""
    return factories.make_generation(
        status="running",
        started_at=utc_now(),
        lease_expires_at=utc_now() + LATER,
        remote_task_id="task_abc123",
        progress=10,
    )


def call_back(client: Client, message_id: str = "msg_1", at: datetime | None = None, **news: Any) -> Reply:
    told = {"event_type": "task_status_update", "task_id": "task_abc123", "status": "running", **news}
    body = json.dumps(told).encode()
    headers = {"content-type": "application/json", **signature(body, message_id, at)}
    return client("POST", PATH, body=body, headers=headers)


def row(database: Database, generation: Generation) -> Generation:
    with database.transaction(write=False) as reading:
        found = select(Generation).where(Generation.id == generation.id)
        return reading.scalars(found.execution_options(populate_existing=True)).one()


def is_due(database: Database, generation: Generation) -> bool:
    due = row(database, generation).lease_expires_at
    return due is not None and due <= utc_now()


def test_a_call_back_makes_the_task_due_and_tells_its_progress(
    nobody: Client, database: Database, parked: Generation
) -> None:
    assert not is_due(database, parked)
    reply = call_back(nobody, progress=65.4, entity_id=str(parked.id), gpu={"name": "something new"})
    assert (reply.status, reply.body) == (204, b"")
    assert is_due(database, parked)
    assert (row(database, parked).progress, row(database, parked).status) == (65, "running")


def test_s22_what_a_call_back_says_of_the_state_is_not_believed(
    nobody: Client, database: Database, parked: Generation
) -> None:
    for number, status in enumerate(("completed", "failed", "canceled", "nonsense", None)):
        assert call_back(nobody, f"msg_{number}", status=status, progress=100).status == 204
    assert (row(database, parked).status, row(database, parked).progress) == ("running", 99)


def test_s22_a_message_that_is_sent_again_is_answered_alike_and_has_no_second_effect(
    nobody: Client, app: Application, database: Database, parked: Generation
) -> None:
    first = call_back(nobody, progress=20)
    with database.transaction(write=True) as writing:
        writing.merge(parked).lease_expires_at = utc_now() + LATER
    again = call_back(nobody, progress=20)
    assert (again.status, again.body) == (first.status, first.body)
    assert not is_due(database, parked)
    assert call_back(nobody, "msg_2", progress=20).status == 204
    assert is_due(database, parked)


def test_messages_are_remembered_for_a_day(nobody: Client, database: Database, parked: Generation) -> None:
    for number in (1, 2):
        call_back(nobody, f"msg_{number}")
    with database.transaction(write=True) as writing:
        old = writing.scalars(select(TaskCallback).where(TaskCallback.message_id == "msg_1")).one()
        old.created_at = utc_now() - 2 * callbacks.KEPT
    callbacks.forget_callbacks(database)
    with database.transaction(write=False) as reading:
        assert reading.scalars(select(TaskCallback.message_id)).all() == ["msg_2"]


@pytest.mark.parametrize(
    "news",
    [
        {"task_id": "task_of_somebody_else"},
        {"entity_id": "01990000-5eed-7000-8000-001200000099"},
        {"entity_id": "nonsense"},
    ],
)
def test_s22_news_of_what_is_not_known_here_are_answered_like_any_other(
    nobody: Client, database: Database, parked: Generation, news: dict[str, Any]
) -> None:
    assert call_back(nobody, **news, progress=90).status == 204
    assert not is_due(database, parked)
    assert row(database, parked).progress == 10


@pytest.mark.parametrize("status", ["pending", "completed", "failed", "canceled", "canceling"])
def test_a_generation_that_is_not_parked_is_left_alone(
    nobody: Client, database: Database, parked: Generation, status: str
) -> None:
    with database.transaction(write=True) as writing:
        writing.merge(parked).status = status
    assert call_back(nobody, progress=90).status == 204
    assert (row(database, parked).status, row(database, parked).progress) == (status, 10)


def forged() -> dict[str, Callable[[dict[str, str]], dict[str, str]]]:
    """Ways to spoil the headers of a genuine message."""
    other = signature(b"{}", "msg_1")["webhook-signature"]
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


@pytest.mark.parametrize("how", forged())
def test_s22_a_forged_call_back_is_refused_and_changes_nothing(
    nobody: Client, database: Database, parked: Generation, how: str
) -> None:
    body = json.dumps({"event_type": "x", "task_id": "task_abc123", "progress": 90}).encode()
    headers = {"content-type": "application/json", **forged()[how](signature(body, "msg_1"))}
    reply = nobody("POST", PATH, body=body, headers=headers)
    assert (reply.status, reply.json()["code"]) == (401, "invalid_webhook_signature")
    assert not is_due(database, parked)
    assert row(database, parked).progress == 10
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count()).select_from(TaskCallback)) == 0


@pytest.mark.parametrize("minutes", [-6, 6])
def test_s22_a_call_back_from_another_time_is_refused(
    nobody: Client, database: Database, parked: Generation, minutes: int
) -> None:
    reply = call_back(nobody, at=datetime.now(UTC) + timedelta(minutes=minutes))
    assert (reply.status, reply.json()["code"]) == (401, "invalid_webhook_signature")
    assert not is_due(database, parked)


def test_s22_the_signature_is_over_the_bytes_as_they_came(
    nobody: Client, database: Database, parked: Generation
) -> None:
    body = b'{ "task_id":"task_abc123",\n "event_type" : "x", "metadata": {"caf\xc3\xa9": 1.50} }'
    headers = {"content-type": "application/json", **signature(body, "msg_1")}
    assert nobody("POST", PATH, body=body, headers=headers).status == 204
    assert is_due(database, parked)
    changed = body.replace(b"1.50", b"1.5")
    assert nobody("POST", PATH, body=changed, headers=headers).status == 401


def test_s22_without_a_secret_no_call_back_is_genuine() -> None:
    with pytest.raises(callbacks.InvalidWebhookSignature):
        callbacks.require_signature(None, b"{}", signature(b"{}", "msg_1"))


def test_the_secret_of_call_backs_is_ones_own_outside_development() -> None:
    own = {"SARTIQ_ENV": "test", "SECRET_KEY": "0123456789abcdef0123456789abcdef"}
    assert Settings.from_environment({}).compute_webhook_secret == DEVELOPMENT_WEBHOOK_SECRET
    assert Settings.from_environment(own).compute_webhook_secret is None
    given = Settings.from_environment({**own, "COMPUTE_WEBHOOK_SECRET": COMPUTE_WEBHOOK_SECRET})
    assert given.compute_webhook_secret == COMPUTE_WEBHOOK_SECRET
    assert COMPUTE_WEBHOOK_SECRET not in repr(given)
    for wrong in (DEVELOPMENT_WEBHOOK_SECRET, "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_%"):
        with pytest.raises(SettingsRefused, match="COMPUTE_WEBHOOK_SECRET"):
            Settings.from_environment({**own, "COMPUTE_WEBHOOK_SECRET": wrong})
