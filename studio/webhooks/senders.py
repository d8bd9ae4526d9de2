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
from studio.jobs.signal import WEBHOOKS
from studio.outbound import Outbound, OutboundFailed, Reply
from studio.settings import Settings
from studio.webhooks import queue
from studio.webhooks.notice import tell_owner
from studio.webhooks.outbox import encode_body
from studio.webhooks.signing import secret_of, signed_headers

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
STOP_SECONDS = 5.0
TIMEOUT_SECONDS = 15.0
MAX_ANSWER_BYTES = 1_048_576
USER_AGENT = "Sartiq-Webhooks/1.0"
_MAY_NAME_A_TIME = frozenset({429, 503})


class WebhookSenders:
    """The senders of one server process; `start` and `stop` once each. A count of 0 sends nothing."""

    def __init__(self, settings: Settings, database: Database, outbound: Outbound) -> None:
        self._settings, self._database, self._outbound = settings, database, outbound
        self._name = f"{socket.gethostname()[:40]}:{os.getpid()}"
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to send."""
        for number in range(self._settings.webhook_senders):
            thread = threading.Thread(target=self._work, name=f"webhook-sender-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Begin nothing more, and wait a little for what is on its way; the rest is sent again by others."""
        self._stopping.set()
        WEBHOOKS.wake()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        wake = WEBHOOKS.listen()
        while not self._stopping.is_set():
            try:
                if not send_next(self._settings, self._database, self._outbound, self._name):
                    wake.wait(POLL_SECONDS)
                    wake.clear()
            except Exception:
                # A sender must outlive whatever happens; the message is sent again when the lease is over.
                logger.exception("a webhook sender failed")
                self._stopping.wait(POLL_SECONDS)


def send_next(settings: Settings, database: Database, outbound: Outbound, name: str) -> bool:
    """Send the message that is first, and record how it went; False when there was none to send."""
    claim = None
    if queue.has_work(database):
        claim = queue.claim_next(database, f"{name}:{secrets.token_hex(8)}")
    if claim is None:
        return False
    recorded = queue.record(database, claim, attempt(settings, outbound, claim))
    if recorded == queue.Recorded.LOST:
        logger.warning("message %s: the endpoint is gone, or another sender took over", claim.message_id)
    if recorded == queue.Recorded.DISABLED:
        tell_owner(settings, database, claim.endpoint_id)
    return True


def attempt(settings: Settings, outbound: Outbound, claim: queue.Claim) -> queue.Outcome:
    """How the target answers to one try. Its words go no further than here: not to people, not to the log."""
    body = encode_body(claim.payload, settings.public_url)
    signing = [secret_of(settings.secret_key, salt) for salt in claim.salts]
    headers = {"content-type": "application/json", "user-agent": USER_AGENT}
    headers |= signed_headers(signing, claim.message_id, utc_now(), body)
    try:
        reply = outbound.send(
            "POST",
            claim.url,
            headers=headers,
            content=body.encode(),
            timeout_seconds=TIMEOUT_SECONDS,
            max_bytes=MAX_ANSWER_BYTES,
        )
    except TargetNotAllowed:
        return queue.Outcome(error="target_not_allowed")
    except OutboundFailed as failure:
        return queue.Outcome(error=_ERRORS.get(failure.reason, "connection_failed"))
    return _outcome_of(reply)


# Anything else that happens on the way is a connection that came to nothing.
_ERRORS = {"timeout": "timeout", "too_large": "refused"}


def _outcome_of(reply: Reply) -> queue.Outcome:
    if 200 <= reply.status < 300:
        return queue.Outcome(reply.status)
    if 300 <= reply.status < 400:
        return queue.Outcome(reply.status, "redirected")
    if reply.status == 410:
        return queue.Outcome(reply.status, "gone")
    pause = _retry_after(reply.headers) if reply.status in _MAY_NAME_A_TIME else None
    return queue.Outcome(reply.status, "refused", pause)


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """What a Retry-After header asks for (RFC 9110, 10.2.3), in seconds or as a date; None for nonsense."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), int(queue.LONGEST_WAIT.total_seconds())))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment - utc_now() if moment.tzinfo is not None else None
