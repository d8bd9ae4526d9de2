"""Call-backs of the Compute API: whether one is genuine, and that each has its effect once.

A message only makes a parked generation due; what there is to know, the next look finds out.
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
"""How long a message is remembered; its signature holds for five minutes only."""
_UNKNOWN_ID = UUID(int=0)


class InvalidWebhookSignature(Unauthenticated):
    """A message is not signed as agreed, or was signed too long ago or ahead of time."""

    code = "invalid_webhook_signature"
    default_detail = "The message is not signed as agreed"


def require_signature(secret: str | None, body: bytes, headers: Mapping[str, str]) -> str:
    """The id of a genuine message (Standard Webhooks 1.0.0); InvalidWebhookSignature for any other.

    Without a secret no message is genuine.
    """
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    lowered = {name.lower(): value for name, value in headers.items()}
    told = {name: lowered.get(name, "") for name in names}
    if secret is None:
        raise InvalidWebhookSignature
    try:
        Webhook(secret).verify(body, told, json_parse=False)
    # The package raises ValueError too, where a header is malformed.
    except (WebhookVerificationError, ValueError) as error:
        raise InvalidWebhookSignature from error
    return told["webhook-id"]


def receive_task_webhook(message_id: str, payload: Mapping[str, Any]) -> None:
    """Look at the task that a genuine message is about, unless the same message came before."""
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
    """Delete the messages that are older than a day."""
    with database.transaction(write=True) as writing:
        writing.execute(delete(TaskCallback).where(TaskCallback.created_at < utc_now() - RETENTION))


def _parse_generation_id(entity_id: str | None) -> UUID | None:
    """The generation that a message names, None when it names none, a stranger when it makes no sense."""
    if entity_id is None:
        return None
    try:
        return UUID(entity_id)
    except ValueError:
        return _UNKNOWN_ID
