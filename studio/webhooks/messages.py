"""Write messages as they are sent: the body, and the headers with the signatures. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from db.base import utc_now
from db.models.webhooks import WebhookEndpoint
from studio.infrastructure.settings import Settings
from studio.webhooks.outbox import encode_body
from studio.webhooks.signing import derive_secret, sign_headers

USER_AGENT = "Sartiq-Webhooks/1.0"

Sign = Callable[[Sequence[str], str, datetime, str], dict[str, str]]
"""Returns the headers of a signed message, as `studio.webhooks.signing.sign_headers`."""


@dataclass(frozen=True)
class SignedMessage:
    """A message that is signed for this moment."""

    headers: dict[str, str]
    body: str


def current_salts(endpoint: WebhookEndpoint) -> tuple[str, ...]:
    """Return the salts to sign with: the secret's, and the previous secret's until it expires."""
    previous, expires_at = endpoint.previous_secret_salt, endpoint.previous_secret_expires_at
    if previous is not None and expires_at is not None and expires_at > utc_now():
        return (endpoint.secret_salt, previous)
    return (endpoint.secret_salt,)


def sign_message(
    settings: Settings,
    message_id: str,
    payload: dict[str, Any],
    salts: Sequence[str],
    sign: Sign = sign_headers,
) -> SignedMessage:
    """Return a message with its body and headers.

    Args:
        settings: The settings of the process.
        message_id: The id of the message.
        payload: The payload as it is stored.
        salts: The salts of the secrets that sign, of `current_salts`.
        sign: Signs the message, for a mock.
    """
    body = encode_body(payload, settings.public_url)
    secrets = [derive_secret(key, salt) for salt in salts for key in settings.secret_keys]
    headers = {"content-type": "application/json", "user-agent": USER_AGENT}
    return SignedMessage(headers | sign(secrets, message_id, utc_now(), body), body)
