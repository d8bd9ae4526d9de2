"""The outbox: what happened is written down for each endpoint that listens, in the transaction of the change.

A rollback takes the message with it, and a crash after the commit loses none.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import select

from db.base import Owned, new_id, utc_now
from db.models.webhooks import WebhookDelivery, WebhookEndpoint
from db.session import after_commit, current_session
from studio.pubsub import WEBHOOKS

TEST_EVENT = "webhook.test"


def publish(event_type: str, row: Owned, status: str, path: str, **ids: UUID | None) -> None:
    """Queue an event about a row for every endpoint of its scope that listens; nothing when none does.

    `path` is where the row can be read, `ids` name related rows. Call it when the change is made: what is
    still to be flushed is flushed here.
    """
    scope = WebhookEndpoint.organization_id == row.organization_id
    if row.organization_id is None:
        scope = WebhookEndpoint.organization_id.is_(None) & (WebhookEndpoint.owner_id == row.owner_id)
    # unscoped: the endpoints of the row's scope, whoever caused the event. The lock keeps an endpoint that is
    # being deleted from failing this transaction.
    listening = select(WebhookEndpoint).where(scope, WebhookEndpoint.is_enabled)  # unscoped: see above
    endpoints = current_session().scalars(listening.with_for_update(read=True, key_share=True)).all()
    endpoints = [endpoint for endpoint in endpoints if event_type in endpoint.event_types]
    if endpoints:
        message_id = f"msg_{new_id().hex}"
        payload = _build_payload(event_type, row, status, path, ids)
        for endpoint in endpoints:
            _enqueue(endpoint, message_id, payload)


def enqueue_test_event(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a test event for one locked endpoint."""
    path = f"/api/v1/webhook-endpoints/{endpoint.id}"
    return _enqueue(endpoint, f"msg_{new_id().hex}", _build_payload(TEST_EVENT, endpoint, "test", path, {}))


def build_body(payload: dict[str, Any], public_url: str) -> dict[str, Any]:
    """The body of a message as the receiver gets it: what is stored is a path, beneath no address yet."""
    return {**payload, "data": {**payload["data"], "url": public_url + payload["data"]["url"]}}


def encode_body(payload: dict[str, Any], public_url: str) -> str:
    """The text that is signed and sent: the same at every try."""
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
    return {"type": event_type, "timestamp": _format_timestamp(utc_now()), "data": data}


def _format_timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def _enqueue(endpoint: WebhookEndpoint, message_id: str, payload: dict[str, Any]) -> WebhookDelivery:
    delivery = WebhookDelivery(
        endpoint_id=endpoint.id, message_id=message_id, event_type=payload["type"], payload=payload
    )
    current_session().add(delivery)
    current_session().flush()
    after_commit(WEBHOOKS.notify)
    return delivery
