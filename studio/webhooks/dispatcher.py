"""The dispatcher: threads of a server or worker process that deliver webhooks.

Any number of processes may run one on the same database.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import select

from db.engine import is_database_unavailable
from db.errors import TargetNotAllowed
from db.models.users import User
from db.models.webhooks import WebhookEndpoint
from db.session import Database
from studio.infrastructure.http_client import HttpClientError, HttpResponse, SafeHttpClient
from studio.infrastructure.pubsub import WEBHOOKS
from studio.infrastructure.retry_after import parse_retry_after
from studio.infrastructure.settings import Settings
from studio.mail.emails import Email
from studio.mail.mailer import find_mailer
from studio.queue.running import Heartbeat, Worker, lease_next, run_leased
from studio.webhooks import queue
from studio.webhooks.messages import Sign, sign_message
from studio.webhooks.signing import sign_headers

logger = logging.getLogger(__name__)

Deliver = Callable[[Settings, SafeHttpClient, queue.MessageLease], queue.Outcome]
"""Sends a message and returns the outcome, as `deliver`."""

POLL_SECONDS = 1.0
STOP_SECONDS = 5.0
TIMEOUT_SECONDS = 15.0
MAX_RESPONSE_BYTES = 1_048_576
_RETRY_AFTER_STATUSES = frozenset({429, 503})
# Every other failure of the exchange counts as a connection that failed.
_ERRORS = {
    "timeout": "timeout",
    "too_large": "refused",
    # The same reason as for a host of the internal network, so that it does not tell which names exist there.
    "unresolved": "target_not_allowed",
}
_DISABLED_REASONS = {
    "gone": "its responses have status 410 (Gone)",
    "failing": "no message has been delivered to it for five days",
}


class FairQueue:
    """The queue as the threads of one process share it: at most half of them send to one tenant.

    Args:
        senders: The number of threads.
    """

    def __init__(self, senders: int) -> None:
        self._running: list[queue.MessageLease] = []
        self._max_per_tenant = max(1, senders // 2)
        # Held while a lease is chosen: two threads must not choose by the same running leases.
        self._lock = threading.Lock()

    @contextmanager
    def lease_next(self, worker: Worker) -> Iterator[queue.MessageLease | None]:
        """Yield the next message and count it as running within the block; None if there is none to send."""
        with self._lock:
            choice = (self._running, self._max_per_tenant)
            choose, is_allowed = queue.choose_next(*choice), queue.is_allowed(*choice)
            lease = lease_next(worker, queue.MESSAGES, choose, is_allowed)
            if lease is not None:
                self._running.append(lease)
        try:
            yield lease
        finally:
            if lease is not None:
                with self._lock:
                    self._running.remove(lease)


class WebhookDispatcher:
    """The threads that deliver webhooks; call `start` and `stop` once each.

    With `webhook_senders` set to 0 it sends nothing. A mock passes a `deliver` of its own.
    """

    def __init__(
        self,
        settings: Settings,
        worker: Worker,
        http_client: SafeHttpClient,
        deliver: Deliver | None = None,
    ) -> None:
        self._settings, self._worker, self._http_client = settings, worker, http_client
        self._deliver = deliver
        self._threads: list[threading.Thread] = []
        self._queue = FairQueue(settings.webhook_senders)

    def start(self) -> None:
        """Start the threads."""
        for number in range(self._settings.webhook_senders):
            thread = threading.Thread(target=self._run, name=f"webhook-sender-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Send nothing new, and wait up to `STOP_SECONDS` for running attempts.

        The messages of attempts that take longer are sent again once their lease has expired.
        """
        self._worker.stopping.set()
        WEBHOOKS.notify()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        wake = WEBHOOKS.listen()
        while not self._worker.stopping.is_set():
            try:
                if not send_next(self._settings, self._worker, self._http_client, self._queue, self._deliver):
                    wake.wait(POLL_SECONDS)
                    wake.clear()
            except Exception as error:
                # The thread must survive every error; the message is sent again when its lease has expired.
                if is_database_unavailable(error):
                    # No defect: the database restarts, or others hold a lock for too long.
                    logger.warning("webhook dispatcher has no database, retrying: %s", error)
                else:
                    logger.exception("webhook dispatcher failed, next attempt in %.0f s", POLL_SECONDS)
                self._worker.stopping.wait(POLL_SECONDS)


def send_next(
    settings: Settings,
    worker: Worker,
    http_client: SafeHttpClient,
    fair_queue: FairQueue | None = None,
    deliver_message: Deliver | None = None,
) -> bool:
    """Send the next due message and record the outcome; return whether there was one.

    Args:
        settings: The settings of the process.
        worker: The process.
        http_client: The client that sends them.
        fair_queue: The queue that the threads of the process share; None for a single thread.
        deliver_message: Replaces `deliver`, for a mock.
    """
    is_disabled = False
    with (fair_queue or FairQueue(1)).lease_next(worker) as lease:
        if lease is None:
            return False

        def work(_heartbeat: Heartbeat) -> Callable[[], None]:
            outcome = (deliver_message or deliver)(settings, http_client, lease)
            return partial(record, outcome)

        def record(outcome: queue.Outcome) -> None:
            nonlocal is_disabled
            is_disabled = queue.record_outcome(lease, outcome)

        # After an outage that lasts longer than the lease, the message is sent again.
        run_leased(worker, queue.MESSAGES, lease, work)
    if is_disabled:
        notify_owner(settings, worker.database, lease.row_id)
    return True


def deliver(
    settings: Settings, http_client: SafeHttpClient, lease: queue.MessageLease, sign: Sign = sign_headers
) -> queue.Outcome:
    """Send a message once and return the outcome.

    The text of the response is neither stored nor logged: it may hold anything.
    """
    message = sign_message(settings, lease.message_id, lease.payload, lease.salts, sign)
    started_at = time.monotonic()
    outcome = _send(http_client, lease.url, message.headers, message.body.encode())
    return replace(outcome, duration=timedelta(seconds=time.monotonic() - started_at))


def _send(http_client: SafeHttpClient, url: str, headers: Mapping[str, str], body: bytes) -> queue.Outcome:
    try:
        response = http_client.send(
            "POST",
            url,
            headers=headers,
            content=body,
            timeout_seconds=TIMEOUT_SECONDS,
            max_bytes=MAX_RESPONSE_BYTES,
        )
    except TargetNotAllowed:
        return queue.Outcome(error="target_not_allowed")
    except HttpClientError as error:
        return queue.Outcome(error=_ERRORS.get(error.reason, "connection_failed"))
    return _to_outcome(response)


def _to_outcome(response: HttpResponse) -> queue.Outcome:
    if 200 <= response.status < 300:
        return queue.Outcome(response.status)
    if 300 <= response.status < 400:
        return queue.Outcome(response.status, "redirected")
    if response.status == 410:
        return queue.Outcome(response.status, "gone")
    retry_after = parse_retry_after(response.headers) if response.status in _RETRY_AFTER_STATUSES else None
    return queue.Outcome(response.status, "refused", retry_after)


def notify_owner(settings: Settings, database: Database, endpoint_id: UUID) -> None:
    """Tell the owner of an endpoint by e-mail that it was disabled, unless it is enabled again."""
    mailer = find_mailer(settings)
    if mailer is None:
        return
    with database.transaction(write=False) as reading:
        query = select(WebhookEndpoint, User.email)  # unscoped: the endpoint that was leased
        query = query.where(WebhookEndpoint.id == endpoint_id)
        query = query.join(User, User.id == WebhookEndpoint.owner_id).where(User.is_active)
        row = reading.execute(query).one_or_none()
    if row is None:
        return
    endpoint, email = row
    reason = _DISABLED_REASONS.get(endpoint.disabled_reason or "")
    if reason is None:
        return
    # Only the host is named: the rest of the URL may hold a credential.
    host = urlsplit(endpoint.url or "").hostname
    message = Email(
        kind="webhook_endpoint_disabled",
        recipient=email,
        subject="A webhook endpoint was disabled",
        text=f"Your webhook endpoint at {host} was disabled, because {reason}.",
        label="How to enable it, and to send the failed messages again",
        url=f"{settings.public_url}/guides/webhooks/",
    )
    with database.transaction(write=True):
        mailer.send(message)
