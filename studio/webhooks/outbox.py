"""The outbox: store one delivery per event and listening endpoint, in the transaction of the change.

A rollback removes the deliveries with the change, and a crash after the commit loses none. Sends nothing.
A message that does not match the contract is a defect of the server: it is logged and not stored.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import select

from db.base import Owned, new_id, utc_now
from db.models.webhooks import WebhookDelivery, WebhookEndpoint
from db.session import after_commit, current_session
from studio.pubsub import WEBHOOKS
from studio.webhooks.message_schemas import find_mismatch

TEST_EVENT = "webhook.test"

logger = logging.getLogger(__name__)


class InvalidMessage(Exception):
    """A message does not match the contract. The text has no values of users."""


def publish(event_type: str, row: Owned, status: str, path: str, **ids: UUID | None) -> None:
    """Queue an event about a row for every endpoint of its tenant that listens to it.

    Call it after the change: it flushes the session.

    Args:
        event_type: The type of the event, for example `generation.completed`.
        row: The row that changed.
        status: The new status of the row.
        path: The path of the row in the API.
        ids: The ids of related rows, by field name.
    """
    tenant = WebhookEndpoint.organization_id == row.organization_id
    if row.organization_id is None:
        tenant = WebhookEndpoint.organization_id.is_(None) & (WebhookEndpoint.owner_id == row.owner_id)
    # unscoped: the endpoints of the row's tenant, whatever the caller may see
    query = select(WebhookEndpoint).where(tenant, WebhookEndpoint.is_enabled)  # unscoped: see above
    # Without the lock, the deletion of an endpoint at the same time would fail this transaction.
    endpoints = current_session().scalars(query.with_for_update(read=True, key_share=True)).all()
    endpoints = [endpoint for endpoint in endpoints if event_type in endpoint.event_types]
    if endpoints:
        message_id = f"msg_{new_id().hex}"
        try:
            payload = _build_payload(event_type, row, status, path, ids)
        except InvalidMessage as error:
            # The change that the event is about stays valid.
            logger.error("webhook message not sent: %s", error)
            return
        for endpoint in endpoints:
            _enqueue(endpoint, message_id, payload)


def enqueue_test_event(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a test event for one locked endpoint."""
    path = f"/api/v1/webhook-endpoints/{endpoint.id}"
    return _enqueue(endpoint, f"msg_{new_id().hex}", _build_payload(TEST_EVENT, endpoint, "test", path, {}))


def build_body(payload: dict[str, Any], public_url: str) -> dict[str, Any]:
    """Return the body of a message: the stored payload with an absolute `url` instead of a path."""
    return {**payload, "data": {**payload["data"], "url": public_url + payload["data"]["url"]}}


def encode_body(payload: dict[str, Any], public_url: str) -> str:
    """Return the body as the JSON text that is signed and sent. Each attempt sends the same text."""
    return orjson.dumps(build_body(payload, public_url)).decode()


def _build_payload(
    event_type: str, row: Owned, status: str, path: str, ids: dict[str, UUID | None]
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": str(row.id),
        "organization_id": str(row.organization_id) if row.organization_id else None,
        "status": str(status),
        "url": path,
    }
    data |= {name: str(value) if value else None for name, value in ids.items()}
    payload = {"type": event_type, "timestamp": _format_timestamp(utc_now()), "data": data}
    # The URL of the server is not known here, and is added when the message is sent.
    if mismatch := find_mismatch(build_body(payload, "https://example.com")):
        raise InvalidMessage(f"{event_type}: {mismatch}")
    return payload


def _format_timestamp(timestamp: datetime) -> str:
    return timestamp.isoformat(timespec="microseconds")[:-6] + "Z"


def _enqueue(endpoint: WebhookEndpoint, message_id: str, payload: dict[str, Any]) -> WebhookDelivery:
    delivery = WebhookDelivery(
        endpoint_id=endpoint.id, message_id=message_id, event_type=payload["type"], payload=payload
    )
    current_session().add(delivery)
    current_session().flush()
    after_commit(WEBHOOKS.notify)
    return delivery
