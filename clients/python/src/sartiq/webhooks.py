"""Verify webhook messages, and sign them (Standard Webhooks 1.0.0).

event = sartiq.webhooks.verify(request.get_data(), request.headers, secret="whsec_...")
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

from pydantic import ValidationError

from sartiq._generated.models import WebhookEvent
from sartiq.errors import WebhookVerificationError

TOLERANCE = 300
"""Seconds that the clocks of the server and the receiver may differ."""


def verify(
    body: bytes | str, headers: Mapping[str, str], secret: str, *, tolerance: float = TOLERANCE
) -> WebhookEvent:
    """Return the event of a message.

    Args:
        body: The body as it was received, before any parsing.
        headers: The headers of the request, in any case.
        secret: The signing secret of the endpoint, `whsec_...`.
        tolerance: Greatest age of the message in seconds.

    Raises:
        WebhookVerificationError: The signature is wrong, the message is too old, or it is no event.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    body = body.encode() if isinstance(body, str) else body
    try:
        message_id, timestamp = lower["webhook-id"], int(lower["webhook-timestamp"])
        signatures = lower["webhook-signature"].split()
    except (KeyError, ValueError) as error:
        raise WebhookVerificationError("A header webhook-id, -timestamp or -signature is missing.") from error
    if abs(time.time() - timestamp) > tolerance:
        raise WebhookVerificationError("The message is too old, or the clock of the receiver is wrong.")
    expected = sign(body, message_id, timestamp, secret).encode()
    # While a secret is rotated, the message has a signature of each.
    if not any(hmac.compare_digest(expected, signature.encode()) for signature in signatures):
        raise WebhookVerificationError("No signature of the message is valid for this secret.")
    try:
        return WebhookEvent.model_validate_json(body)
    except ValidationError as error:
        raise WebhookVerificationError("The message is no event.") from error


def sign(body: bytes, message_id: str, timestamp: int, secret: str) -> str:
    """Return the `webhook-signature` of a message.

    Raises:
        WebhookVerificationError: The secret has another form.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise WebhookVerificationError("The secret has the form whsec_ and Base64.") from error
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
