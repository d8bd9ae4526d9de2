"""Slow servers of one tenant do not delay the webhooks and image fetches of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest
import time_machine

from db.base import utc_now
from db.models import User, WebhookEndpoint
from db.session import Database
from handlers.app import Application
from handlers.pipeline.admission.limits import Limit
from studio.infrastructure.http_client import SafeHttpClient
from studio.media import fetching
from studio.webhooks import dispatcher, queue
from tests.api.conftest import Client
from tests.support import factories
from tests.support.app import replace_service
from tests.support.client import ClientResponse, status_and_code
from tests.support.concurrency import wait_for
from tests.support.queues import LEASE, build_worker, try_record
from tests.support.rejections import Rejections
from tests.support.sample_media import build_orientation_image, encode_image
from tests.support.servers.webhook_receiver import (
    SETTINGS,
    START,
    WebhookReceiver,
    get_endpoint,
    make_endpoint,
    publish_event,
    send_next_delivery,
)
from tools.servers.http_recorder import StubResponse, run_http_recorder

SENDERS = SETTINGS.webhook_senders


@pytest.fixture
def receivers() -> Iterator[tuple[WebhookReceiver, WebhookReceiver]]:
    """Yield a server that does not respond until `may_respond` is set, and one that responds."""
    slow, fast = WebhookReceiver(), WebhookReceiver()
    slow.may_respond.clear()
    with ExitStack() as stack:
        for receiver in (slow, fast):
            receiver.recorder = stack.enter_context(run_http_recorder(receiver.respond))
        yield slow, fast
        slow.may_respond.set()


def queue_messages(*endpoints: WebhookEndpoint, each: int = 1) -> None:
    """Create messages to endpoints that are due now."""
    for endpoint in endpoints:
        for _ in range(each):
            factories.make_webhook_delivery(endpoint, status="pending", tries=0, next_attempt_at=utc_now())


@pytest.mark.parametrize("neighbor", ["one organization", "one account with many organizations"])
@pytest.mark.slow("it waits for slow endpoints")
def test_s37_slow_endpoints_of_one_tenant_use_half_of_the_senders(
    neighbor: str, own_database: Database, receivers: tuple[WebhookReceiver, WebhookReceiver]
) -> None:
    slow, fast = receivers
    with own_database.transaction(write=True):
        owner = factories.make_user()
        organization = factories.make_organization(owner)
        for number in range(2 * SENDERS):
            if number and neighbor != "one organization":
                organization = factories.make_organization(owner)
            scope = {"organization_id": organization.id, "owner_id": owner.id}
            queue_messages(make_endpoint(slow, **scope))
        victim = make_endpoint(fast)
    http_client = SafeHttpClient([slow.recorder.host, fast.recorder.host])
    running = dispatcher.WebhookDispatcher(SETTINGS, build_worker(own_database), http_client)
    running.start()
    try:
        wait_for(lambda: len(slow.recorder.requests) == SENDERS // 2)
        with own_database.transaction(write=True):
            queue_messages(victim, each=10)
        # The slow endpoints still hold their senders.
        wait_for(lambda: len(fast.recorder.requests) == 10)
        assert len(slow.recorder.requests) == SENDERS // 2
        slow.may_respond.set()
        # Nothing of the slow tenant is lost.
        wait_for(lambda: len(slow.recorder.requests) == 2 * SENDERS)
    finally:
        slow.may_respond.set()
        running.stop()


def lease_next(database: Database, running: list[queue.MessageLease]) -> queue.MessageLease | None:
    return queue.MESSAGES.lease_next(database, LEASE, queue.choose_next(running, 2))


def test_s37_the_tenant_with_the_fewest_running_messages_comes_first(database: Database) -> None:
    owner = factories.make_user()
    busy = [factories.make_webhook_endpoint(owner=owner, leased_at=START) for _ in range(3)]
    other = factories.make_webhook_endpoint(leased_at=START + timedelta(days=1))
    queue_messages(*busy, other)
    first = lease_next(database, [])
    assert first is not None
    assert first.owner_id == owner.id
    second = lease_next(database, [first])
    assert second is not None
    assert second.row_id == other.id
    third = lease_next(database, [first, second])
    assert third is not None
    assert third.owner_id == owner.id
    # The owner has two running messages, which is the maximum.
    assert queue.MESSAGES.count_available(database, 9, queue.is_allowed([first, second, third], 2)) == 0
    assert lease_next(database, [first, second, third]) is None
    assert queue.MESSAGES.count_available(database, 9, queue.is_allowed([first, second], 2)) == 1


def test_s37_the_cooldown_after_a_timeout_starts_at_a_minute_and_doubles(
    database: Database, receivers: tuple[WebhookReceiver, WebhookReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "TIMEOUT_SECONDS", 0.05)
    slow, _ = receivers
    endpoint = make_endpoint(slow)
    with time_machine.travel(START, tick=False) as clock:
        cooldowns = []
        for _ in range(8):
            publish_event(database, endpoint)
            assert send_next_delivery(database, slow)
            busy_until = get_endpoint(database, endpoint).lease_expires_at
            assert busy_until is not None
            cooldowns.append(round((busy_until - utc_now()).total_seconds()))
            clock.move_to(busy_until)
    assert cooldowns == [60, 60, 120, 240, 480, 960, 1920, 3600]


def test_s37_an_endpoint_that_answers_slowly_pauses_as_long_as_its_answer_took(
    database: Database,
) -> None:
    endpoint = factories.make_webhook_endpoint()
    queue_messages(endpoint, each=2)
    with time_machine.travel(START + timedelta(days=365), tick=False):
        for seconds, busy_until in ((2, None), (14, utc_now() + timedelta(seconds=14))):
            lease = queue.MESSAGES.lease_next(database, LEASE)
            assert lease is not None
            outcome = queue.Outcome(200, duration=timedelta(seconds=seconds))
            assert try_record(database, queue.record_outcome, lease, outcome)
            assert get_endpoint(database, endpoint).lease_expires_at == busy_until


def test_s37_the_duration_of_an_attempt_is_measured(
    database: Database, receivers: tuple[WebhookReceiver, WebhookReceiver]
) -> None:
    _, fast = receivers
    fast.pause_seconds = 0.05
    queue_messages(make_endpoint(fast))
    lease = queue.MESSAGES.lease_next(database, LEASE)
    assert lease is not None
    outcome = dispatcher.deliver(SETTINGS, SafeHttpClient([fast.recorder.host]), lease)
    assert (outcome.status_code, outcome.duration >= timedelta(seconds=0.05)) == (204, True)


def test_s37_slow_image_urls_of_one_account_leave_slots_to_others(
    app: Application,
    client_for: Callable[[User], Client],
    monkeypatch: pytest.MonkeyPatch,
    receivers: tuple[WebhookReceiver, WebhookReceiver],
    rejections: Rejections,
) -> None:
    slow, fast = receivers
    fast.responses = [StubResponse(200, encode_image(build_orientation_image(), "JPEG"))]
    hosts = SafeHttpClient([slow.recorder.host, fast.recorder.host])
    replace_service(monkeypatch, app, http_client=hosts)
    # On a busy machine, the first requests must still wait when the last one arrives.
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 120.0)
    noisy, other = client_for(factories.make_user()), client_for(factories.make_user())

    def create_brand(client: Client, receiver: WebhookReceiver) -> ClientResponse:
        return client("POST", "/brands/", {"name": "Aurora", "logo_url": f"{receiver.recorder.url}/logo.jpg"})

    limit = app.services.fetch_slots.per_owner
    assert limit == app.settings.request_threads // 4
    with ThreadPoolExecutor(limit) as pool:
        waiting = [pool.submit(create_brand, noisy, slow) for _ in range(limit)]
        wait_for(lambda: len(slow.recorder.requests) == limit)
        rejected = create_brand(noisy, slow)
        assert status_and_code(rejected) == (429, "too_many_concurrent_requests"), rejected.json()
        assert rejected.headers["retry-after"] == "1"
        assert rejections.take() == {(429, "too_many_concurrent_requests", Limit.FETCH_SLOTS)}
        assert create_brand(other, fast).status == 201
        slow.may_respond.set()
        assert {one.result().json()["code"] for one in waiting} == {"image_not_fetched"}
    assert len(slow.recorder.requests) == limit
