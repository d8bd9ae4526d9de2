"""Receive the callbacks of the Compute API: verify signatures and ignore repeated messages.

A callback only makes a generation due for a poll. The poll loads the state of the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from standardwebhooks import Webhook, WebhookVerificationError

from db.base import utc_now
from db.errors import Unauthenticated
from db.models.generations import TaskCallback
from db.session import Database, current_session
from studio.generations.worker import polling

RETENTION = timedelta(days=1)
"""How long the ids of messages are stored; a signature is valid for five minutes only."""
_UNKNOWN_ID = UUID(int=0)


class InvalidWebhookSignature(Unauthenticated):
    """The signature of a callback is missing, invalid, expired or from the future."""

    code = "invalid_webhook_signature"
    default_detail = "The webhook signature is missing, invalid or expired"


def require_signature(secret: str | None, body: bytes, headers: Mapping[str, str]) -> str:
    """Return the id of a message with a valid signature (Standard Webhooks 1.0.0).

    Args:
        secret: The shared secret; None rejects every message.
        body: The body as it was received.
        headers: The headers of the request, in whatever case.

    Raises:
        InvalidWebhookSignature: The signature is not valid.
    """
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    lowercase = {name.lower(): value for name, value in headers.items()}
    signature_headers = {name: lowercase.get(name, "") for name in names}
    if secret is None:
        raise InvalidWebhookSignature
    try:
        Webhook(secret).verify(body, signature_headers, json_parse=False)
    # The package raises ValueError if a header is malformed.
    except (WebhookVerificationError, ValueError) as error:
        raise InvalidWebhookSignature from error
    return signature_headers["webhook-id"]


def receive_task_webhook(message_id: str, payload: Mapping[str, Any]) -> None:
    """Schedule a poll of the task of a verified message, unless the message is a repetition."""
    try:
        with current_session().begin_nested():
            current_session().add(TaskCallback(message_id=message_id))
    except IntegrityError:
        return
    progress = payload.get("progress")
    polling.poll_now(
        payload["task_id"],
        _parse_generation_id(payload.get("entity_id")),
        None if progress is None else int(progress),
    )


def delete_old_callbacks(database: Database) -> None:
    """Delete the ids of messages that are older than `RETENTION`."""
    with database.transaction(write=True) as writing:
        writing.execute(delete(TaskCallback).where(TaskCallback.created_at < utc_now() - RETENTION))


def _parse_generation_id(entity_id: str | None) -> UUID | None:
    """Return the id that a message names, None if it names none, an unknown id if it is no UUID."""
    if entity_id is None:
        return None
    try:
        return UUID(entity_id)
    except ValueError:
        return _UNKNOWN_ID
