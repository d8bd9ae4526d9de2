"""Test the delivery of webhooks: retries, disabled endpoints, crashed dispatchers and concurrency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import time_machine
from sqlalchemy import delete, select

from db.base import utc_now
from db.engine import build_engine
from db.models import Organization, User, WebhookDelivery, WebhookEndpoint
from db.session import Database, current_session
from studio.infrastructure.http_client import SafeHttpClient
from studio.mail.queue import run_pending_emails
from studio.queue.retries import JITTER, WEBHOOK_MESSAGES
from studio.webhooks import dispatcher, queue
from tests.support import factories
from tests.support.concurrency import wait_for
from tests.support.mailbox import list_emails_in
from tests.support.queues import LEASE, build_worker, try_record
from tests.support.servers.webhook_receiver import (
    SETTINGS,
    START,
    WebhookReceiver,
    get_endpoint,
    get_only_delivery,
    list_rows,
    make_endpoint,
    publish_event,
    send_next_delivery,
)
from tools.servers.http_recorder import StubResponse, run_http_recorder


@pytest.fixture
def mail_folder(tmp_path: Path) -> Path:
    """Return the folder to which e-mails to the owners are written."""
    return tmp_path / "mail"


def test_a_failing_delivery_is_attempted_ten_times_over_three_days(
    database: Database, receiver: WebhookReceiver
) -> None:
    receiver.responses = [StubResponse(500)] * 10
    with time_machine.travel(START, tick=False) as clock:
        endpoint = make_endpoint(receiver)
        publish_event(database, endpoint)
        pauses = []
        while send_next_delivery(database, receiver):
            due = get_only_delivery(database).next_attempt_at
            if due is not None:
                pauses.append(due - utc_now())
                assert not send_next_delivery(database, receiver)
                clock.move_to(due)
        for pause, planned in zip(pauses, WEBHOOK_MESSAGES.delays, strict=True):
            assert abs(pause - planned) <= planned * JITTER
        delivery = get_only_delivery(database)
        assert (delivery.status, delivery.attempts) == ("failed", 10)
        assert (delivery.last_status_code, delivery.last_error) == (500, "refused")
        assert len(receiver.ids) == 10
        assert set(receiver.ids) == {delivery.message_id}
        assert len({request.headers["webhook-timestamp"] for request in receiver.recorder.requests}) == 10
        assert {request.body for request in receiver.recorder.requests} == {
            receiver.recorder.requests[0].body
        }
        # An endpoint is disabled after five days of failures, not after three.
        assert get_endpoint(database, endpoint).is_enabled


def test_five_days_without_success_disable_an_endpoint(database: Database, receiver: WebhookReceiver) -> None:
    receiver.responses = [StubResponse(500)] * 2
    with time_machine.travel(START, tick=False):
        endpoint = make_endpoint(receiver, failing_since=START - timedelta(days=5))
        last_attempt = {"status": "pending", "tries": 9, "attempts": 9, "next_attempt_at": START}
        factories.make_webhook_delivery(endpoint, **last_attempt)
        publish_event(database, endpoint)
        send_next_delivery(database, receiver)
        found = get_endpoint(database, endpoint)
        assert (found.is_enabled, found.disabled_reason, found.disabled_at) == (False, "failing", START)
        # Pending deliveries end without an attempt, and new events create none.
        assert not send_next_delivery(database, receiver)
        publish_event(database, endpoint)
        assert sorted(str(one.last_error) for one in list_rows(database, WebhookDelivery)) == [
            "endpoint_disabled",
            "refused",
        ]
        assert len(receiver.ids) == 1


def test_a_success_resets_failing_since(database: Database, receiver: WebhookReceiver) -> None:
    endpoint = make_endpoint(receiver, failing_since=utc_now() - timedelta(days=9))
    publish_event(database, endpoint)
    send_next_delivery(database, receiver)
    assert get_endpoint(database, endpoint).failing_since is None


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (StubResponse(301, headers={"Location": "/elsewhere"}), "redirected"),
        (StubResponse(404, b"a secret of the target"), "refused"),
        (StubResponse(500, b"x" * 2_000_000), "refused"),
        (StubResponse(write=lambda connection: connection.close()), "connection_failed"),
    ],
    ids=["redirect", "not found", "huge", "closed connection"],
)
def test_s09_every_non_2xx_response_is_a_failure_recorded_by_kind_only(
    database: Database, receiver: WebhookReceiver, response: StubResponse, error: str
) -> None:
    receiver.responses = [response]
    publish_event(database, make_endpoint(receiver))
    send_next_delivery(database, receiver)
    delivery = get_only_delivery(database)
    assert (delivery.status, delivery.last_error) == ("pending", error)
    assert [request.path for request in receiver.recorder.requests] == ["/hooks"]


def test_a_410_response_disables_the_endpoint_and_its_owner_gets_an_email(
    database: Database, receiver: WebhookReceiver, mail_folder: Path
) -> None:
    receiver.responses = [StubResponse(410)]
    owner = factories.make_user(email="owner@example.com")
    endpoint = make_endpoint(receiver, owner=owner)
    publish_event(database, endpoint)
    send_next_delivery(database, receiver)
    delivery, found = get_only_delivery(database), get_endpoint(database, endpoint)
    assert (delivery.status, delivery.last_error, delivery.last_status_code) == ("failed", "gone", 410)
    assert (found.is_enabled, found.disabled_reason) == (False, "gone")
    run_pending_emails(build_worker(database), replace(SETTINGS, outbox_dir=mail_folder))
    (text,) = list_emails_in(mail_folder, "owner@example.com")
    assert "127.0.0.1 was disabled, because its responses have status 410 (Gone)" in text
    assert "/hooks" not in text


@pytest.mark.parametrize(
    ("status", "text", "seconds"),
    [
        (503, "600", 600),
        (429, format_datetime(START + timedelta(seconds=900), usegmt=True), 900),
        (429, "99999999", 24 * 3600),
        (503, "soon", 5),
        (503, f"Mon, 01 Jan {'9' * 30} 00:00:00 GMT", 5),
        (500, "600", 5),
    ],
)
def test_retry_after_of_429_and_503_responses_delays_the_next_attempt(
    database: Database, receiver: WebhookReceiver, status: int, text: str, seconds: int
) -> None:
    receiver.responses = [StubResponse(status, headers={"Retry-After": text})]
    with time_machine.travel(START, tick=False) as clock:
        endpoint = make_endpoint(receiver)
        publish_event(database, endpoint)
        send_next_delivery(database, receiver)
        due = get_only_delivery(database).next_attempt_at
        assert due is not None
        assert abs((due - START).total_seconds() - seconds) <= 0.5
        # Other deliveries to the endpoint wait too, for at most an hour or until a test event is requested.
        publish_event(database, endpoint)
        assert send_next_delivery(database, receiver) == (status == 500)
        clock.shift(timedelta(hours=1))
        assert send_next_delivery(database, receiver)


def test_a_response_that_takes_too_long_is_a_timeout(
    database: Database, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "TIMEOUT_SECONDS", 0.1)
    receiver.pause_seconds = 0.4
    endpoint = make_endpoint(receiver)
    publish_event(database, endpoint)
    send_next_delivery(database, receiver)
    assert get_only_delivery(database).last_error == "timeout"
    assert get_endpoint(database, endpoint).lease_expires_at is not None


def test_s09_a_target_that_is_no_longer_allowed_gets_no_request(
    database: Database, receiver: WebhookReceiver
) -> None:
    """The target was allowed when the endpoint was registered, and is not allowed at the delivery."""
    publish_event(database, make_endpoint(receiver))
    assert send_next_delivery(database)
    assert get_only_delivery(database).last_error == "target_not_allowed"
    assert receiver.recorder.requests == []


def test_the_cooldown_grows_with_the_time_an_endpoint_has_been_failing(
    database: Database, receiver: WebhookReceiver
) -> None:
    receiver.responses = [StubResponse(503)] * 3
    with time_machine.travel(START, tick=False):
        for minutes, cooldown in ((0, 5), (8, 120), (3_000, 3_600)):
            endpoint = make_endpoint(receiver, failing_since=START - timedelta(minutes=minutes))
            publish_event(database, endpoint)
            send_next_delivery(database, receiver)
            assert get_endpoint(database, endpoint).lease_expires_at == START + timedelta(seconds=cooldown)


def test_s09_a_name_that_also_resolves_to_loopback_gets_no_request(
    database: Database, receiver: WebhookReceiver
) -> None:
    port = receiver.recorder.port
    endpoint = factories.make_webhook_endpoint(url="https://hooks.example.com/sartiq")
    publish_event(database, endpoint)
    client = SafeHttpClient(
        [f"127.0.0.1:{port}"], resolve=lambda _host, _port: ["93.184.216.34", "127.0.0.1"]
    )
    assert dispatcher.send_next(SETTINGS, build_worker(database), client)
    assert get_only_delivery(database).last_error == "target_not_allowed"
    assert receiver.recorder.requests == []


def test_s09_an_unknown_name_has_the_same_reason_as_an_internal_one(
    database: Database,
) -> None:
    publish_event(database, factories.make_webhook_endpoint(url="https://unknown.invalid/sartiq"))
    assert dispatcher.send_next(SETTINGS, build_worker(database), SafeHttpClient())
    assert get_only_delivery(database).last_error == "target_not_allowed"


def test_a_crash_between_sending_and_recording_sends_again_under_the_same_id(
    database: Database, receiver: WebhookReceiver
) -> None:
    outbound = SafeHttpClient([receiver.recorder.host])
    with time_machine.travel(START, tick=False) as clock:
        endpoint = make_endpoint(receiver)
        publish_event(database, endpoint)
        lost = queue.MESSAGES.lease_next(database, LEASE)
        assert lost is not None
        sent = dispatcher.deliver(SETTINGS, outbound, lost)
        assert not send_next_delivery(database, receiver)
        clock.shift(LEASE)
        assert send_next_delivery(database, receiver)
        assert len(receiver.ids) == 2
        assert len(set(receiver.ids)) == 1
        # The first dispatcher has lost its lease: it records nothing.
        assert not try_record(database, queue.record_outcome, lost, sent)
        delivery = get_only_delivery(database)
        assert (delivery.status, delivery.attempts) == ("delivered", 2)


def test_a_delivery_fails_after_ten_interrupted_attempts(
    database: Database, receiver: WebhookReceiver
) -> None:
    with time_machine.travel(START, tick=False) as clock:
        publish_event(database, make_endpoint(receiver))
        for _ in range(10):
            assert queue.MESSAGES.lease_next(database, LEASE) is not None
            clock.shift(LEASE)
        assert queue.MESSAGES.lease_next(database, LEASE) is None
        delivery = get_only_delivery(database)
        assert (delivery.status, delivery.last_error) == ("failed", "interrupted")


def test_deleting_an_endpoint_during_a_delivery_deletes_its_deliveries(
    database: Database, receiver: WebhookReceiver
) -> None:
    endpoint = make_endpoint(receiver)
    publish_event(database, endpoint)
    lease = queue.MESSAGES.lease_next(database, LEASE)
    assert lease is not None
    with database.transaction(write=True):
        # unscoped: the row of this test
        current_session().execute(delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint.id))
    assert not try_record(database, queue.record_outcome, lease, queue.Outcome(200))
    assert list_rows(database, WebhookDelivery) == []


@pytest.fixture
def organization_and_owner(committing_database: Database) -> Iterator[tuple[UUID, UUID]]:
    """Yield the ids of a committed organization and its owner; delete both with their rows afterwards."""
    with committing_database.transaction(write=True):
        owner = factories.make_user()
        organization = factories.make_organization(owner)
    yield organization.id, owner.id
    with committing_database.transaction(write=True) as cleaning:
        # unscoped: the rows of this test
        cleaning.execute(delete(WebhookEndpoint).where(WebhookEndpoint.organization_id == organization.id))
        cleaning.execute(delete(Organization).where(Organization.id == organization.id))
        cleaning.execute(delete(User).where(User.id == owner.id))


def test_two_processes_send_each_message_once_and_a_slow_target_does_not_delay_others(
    committing_database: Database,
    database_url: str,
    organization_and_owner: tuple[UUID, UUID],
    receiver: WebhookReceiver,
) -> None:
    organization_id, owner_id = organization_and_owner
    scope = {"organization_id": organization_id, "owner_id": owner_id}
    slow = WebhookReceiver()
    slow.may_respond.clear()
    receiver.pause_seconds = 0.01
    with run_http_recorder(slow.respond) as slow.recorder:
        with committing_database.transaction(write=True):
            fast = make_endpoint(receiver, **scope)
            late = make_endpoint(slow, **scope)
            for endpoint, count in ((fast, 20), (late, 2)):
                for number in range(count):
                    factories.make_webhook_delivery(
                        endpoint,
                        status="pending",
                        tries=0,
                        message_id=f"msg_{endpoint.id.hex[:30]}{number:02d}",
                        next_attempt_at=utc_now(),
                    )
        outbound = SafeHttpClient([receiver.recorder.host, slow.recorder.host])
        other = Database(build_engine(database_url, pool_size=4))
        both = [
            dispatcher.WebhookDispatcher(SETTINGS, build_worker(one), outbound)
            for one in (committing_database, other)
        ]
        for one in both:
            one.start()
        wait_for(lambda: len(receiver.ids) >= 20)
        assert len(slow.ids) <= 1
        slow.may_respond.set()
        wait_for(lambda: not has_pending(committing_database, scope))
        for one in both:
            one.stop()
        other.dispose()
    assert len(receiver.ids) == len(set(receiver.ids)) == 20
    assert len(slow.ids) == len(set(slow.ids)) == 2
    assert (receiver.max_concurrent, slow.max_concurrent) == (1, 1)


def has_pending(database: Database, scope: dict[str, Any]) -> bool:
    with database.transaction(write=False) as reading:
        # unscoped: the rows of this test
        query = select(WebhookDelivery.id).join(
            WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id
        )
        query = query.where(WebhookDelivery.status == "pending").filter(
            WebhookEndpoint.organization_id == scope["organization_id"]
        )
        return reading.scalar(query.limit(1)) is not None
