"""Deliver the webhooks of a mock: late, never, several times or badly signed where its scenario says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import Settings
from studio.mock.scenario import Scenario
from studio.webhooks import dispatcher, queue
from studio.webhooks.messages import Sign
from studio.webhooks.signing import derive_secret, generate_salt, sign_headers

STALE_BY = timedelta(hours=1)
"""The age of the timestamp in a stale message. Receivers reject messages that are older than five minutes."""


def deliver(
    scenario: Scenario, settings: Settings, http_client: SafeHttpClient, lease: queue.MessageLease
) -> queue.Outcome:
    """Send a message as the scenario says, and return the outcome of the last copy."""
    rule = scenario.take_webhook(lease.payload["type"]) or {}
    time.sleep(rule.get("delay", 0))
    if rule.get("drop"):
        return queue.Outcome(error="timeout")
    sign = _SIGNERS[rule.get("signature", "valid")]
    outcomes = [
        dispatcher.deliver(settings, http_client, lease, sign=sign) for _ in range(rule.get("copies", 1))
    ]
    return outcomes[-1]


def _sign_wrongly(_secrets: Sequence[str], message_id: str, now: datetime, body: str) -> dict[str, str]:
    return sign_headers([derive_secret("another key", generate_salt())], message_id, now, body)


def _sign_in_the_past(secrets: Sequence[str], message_id: str, now: datetime, body: str) -> dict[str, str]:
    return sign_headers(secrets, message_id, now - STALE_BY, body)


_SIGNERS: dict[str, Sign] = {
    "valid": sign_headers,
    "invalid": _sign_wrongly,
    "stale": _sign_in_the_past,
}
