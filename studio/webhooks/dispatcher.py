"""Threads of a server process that send what is in the outbox. Any number of processes may do so at once."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime

from db.base import utc_now
from db.errors import TargetNotAllowed
from db.session import Database
from studio.http_client import HttpClientError, HttpResponse, SafeHttpClient
from studio.pubsub import WEBHOOKS
from studio.settings import Settings
from studio.webhooks import queue
from studio.webhooks.outbox import encode_body
from studio.webhooks.owner_notification import notify_owner
from studio.webhooks.signing import derive_secret, sign_headers

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
STOP_SECONDS = 5.0
TIMEOUT_SECONDS = 15.0
MAX_RESPONSE_BYTES = 1_048_576
USER_AGENT = "Sartiq-Webhooks/1.0"
_RETRY_AFTER_STATUSES = frozenset({429, 503})


class WebhookDispatcher:
    """The senders of one server process; `start` and `stop` once each. A count of 0 sends nothing."""

    def __init__(self, settings: Settings, database: Database, http_client: SafeHttpClient) -> None:
        self._settings, self._database, self._http_client = settings, database, http_client
        self._name = f"{socket.gethostname()[:40]}:{os.getpid()}"
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to send."""
        for number in range(self._settings.webhook_senders):
            thread = threading.Thread(target=self._run, name=f"webhook-sender-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Begin nothing more, and wait a little for what is on its way; the rest is sent again by others."""
        self._stopping.set()
        WEBHOOKS.notify()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        wake = WEBHOOKS.listen()
        while not self._stopping.is_set():
            try:
                if not send_next(self._settings, self._database, self._http_client, self._name):
                    wake.wait(POLL_SECONDS)
                    wake.clear()
            except Exception:
                # A sender must outlive whatever happens; the message is sent again when the lease is over.
                logger.exception("a webhook sender failed")
                self._stopping.wait(POLL_SECONDS)


def send_next(settings: Settings, database: Database, http_client: SafeHttpClient, name: str) -> bool:
    """Send the message that is first, and record how it went; False when there was none to send."""
    claim = None
    if queue.has_available(database):
        claim = queue.lease_next(database, f"{name}:{secrets.token_hex(8)}")
    if claim is None:
        return False
    recorded = queue.record_outcome(database, claim, deliver(settings, http_client, claim))
    if recorded == queue.RecordResult.LOST:
        logger.warning("message %s: the endpoint is gone, or another sender took over", claim.message_id)
    if recorded == queue.RecordResult.DISABLED:
        notify_owner(settings, database, claim.endpoint_id)
    return True


def deliver(settings: Settings, http_client: SafeHttpClient, lease: queue.Lease) -> queue.Outcome:
    """How the target answers to one try. Its words go no further than here: not to people, not to the log."""
    body = encode_body(lease.payload, settings.public_url)
    signing = [derive_secret(settings.secret_key, salt) for salt in lease.salts]
    headers = {"content-type": "application/json", "user-agent": USER_AGENT}
    headers |= sign_headers(signing, lease.message_id, utc_now(), body)
    try:
        reply = http_client.send(
            "POST",
            lease.url,
            headers=headers,
            content=body.encode(),
            timeout_seconds=TIMEOUT_SECONDS,
            max_bytes=MAX_RESPONSE_BYTES,
        )
    except TargetNotAllowed:
        return queue.Outcome(error="target_not_allowed")
    except HttpClientError as failure:
        return queue.Outcome(error=_ERRORS.get(failure.reason, "connection_failed"))
    return _to_outcome(reply)


# Anything else that happens on the way is a connection that came to nothing.
_ERRORS = {"timeout": "timeout", "too_large": "refused"}


def _to_outcome(response: HttpResponse) -> queue.Outcome:
    if 200 <= response.status < 300:
        return queue.Outcome(response.status)
    if 300 <= response.status < 400:
        return queue.Outcome(response.status, "redirected")
    if response.status == 410:
        return queue.Outcome(response.status, "gone")
    pause = _parse_retry_after(response.headers) if response.status in _RETRY_AFTER_STATUSES else None
    return queue.Outcome(response.status, "refused", pause)


def _parse_retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """What a Retry-After header asks for (RFC 9110, 10.2.3), in seconds or as a date; None for nonsense."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), int(queue.MAX_RETRY_AFTER.total_seconds())))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment - utc_now() if moment.tzinfo is not None else None
