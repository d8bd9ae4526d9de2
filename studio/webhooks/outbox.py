"""The outbox: store one delivery per event and listening endpoint, in the transaction of the change.

A rollback removes the deliveries with the change, and a crash after the commit loses none. Sends nothing.
A message that does not match the contract is a defect of the server: it is logged and not stored.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, and_, bindparam, event, insert, literal_column, or_, select
from sqlalchemy.orm import Session

from db.base import Identified, Owned, new_id, utc_now
from db.event_loop_session import EventLoopSession, load_with
from db.fast_path.insert import insert_row
from db.libpq.statements import Row
from db.models.webhooks import DeliveryMode, WebhookDelivery, WebhookEndpoint
from db.session import after_commit, current_session, insert_later
from studio.infrastructure.pubsub import WEBHOOKS
from studio.webhooks.message_schemas import find_mismatch

TEST_EVENT = "webhook.test"
_LOADED = "webhook_endpoints"
"""The key in `Session.info` with the endpoints that the transaction has loaded, by tenant."""

logger = logging.getLogger(__name__)


_INSERT = insert(WebhookDelivery)
# unscoped: the endpoints of the row's tenant, whatever the caller may see
_COLUMNS = WebhookEndpoint.id, WebhookEndpoint.delivery, WebhookEndpoint.event_types
_ENABLED = select(*_COLUMNS).where(WebhookEndpoint.is_enabled)  # unscoped: see above
# Without the lock, the deletion of an endpoint at the same time would fail the transaction.
_LOCKED = _ENABLED.with_for_update(read=True, key_share=True)
_OF_ORGANIZATION = _LOCKED.where(WebhookEndpoint.organization_id == bindparam("organization_id"))
_PERSONAL = _LOCKED.where(
    WebhookEndpoint.organization_id.is_(None), WebhookEndpoint.owner_id == bindparam("owner_id")
)


class InvalidMessage(Exception):
    """A message does not match the contract. The text has no values of users."""


class Tenant(NamedTuple):
    """An organization or, if `organization_id` is None, the personal resources of a user."""

    organization_id: UUID | None
    owner_id: UUID | None


class _Listener(NamedTuple):
    """An enabled endpoint of a tenant."""

    id: UUID
    delivery: str
    event_types: list[Any]


def tenant_of(row: Owned) -> Tenant:
    """Return the tenant of a row."""
    return Tenant(row.organization_id, row.owner_id if row.organization_id is None else None)


def has_endpoints(model: type[Owned]) -> ColumnElement[bool]:
    """Return the condition that the tenant of a row of `model` has an enabled endpoint.

    An INSERT can return it, so that the event of a new row needs no statement in a tenant without endpoints.
    """
    # SQLAlchemy writes the columns in RETURNING without their tables, so name the table of the row.
    organization_id, owner_id = (
        literal_column(f"{model.__tablename__}.{name}", column.type)
        for name, column in (("organization_id", model.organization_id), ("owner_id", model.owner_id))
    )
    # unscoped: only tells whether the tenant of the row has endpoints
    endpoints = select(WebhookEndpoint.id).where(WebhookEndpoint.is_enabled)  # unscoped: see above
    of_organization = WebhookEndpoint.organization_id == organization_id
    personal = WebhookEndpoint.organization_id.is_(None) & (WebhookEndpoint.owner_id == owner_id)
    # Two subqueries, because one with OR would use no index.
    return or_(
        endpoints.where(of_organization).exists(),
        and_(organization_id.is_(None), endpoints.where(personal).exists()),
    )


def load_endpoints_with(model: type[Owned]) -> None:
    """Load the endpoints of a tenant together with each locked row of `model` that events are about."""
    organization_id = select(model.organization_id).where(
        model.id == bindparam("row_id")
    )  # unscoped: see above

    def receive(session: EventLoopSession, row: Owned, endpoints: list[Row]) -> None:
        # The owner of personal rows would need a query of its own, because one with OR would use no index.
        if row.organization_id is not None:
            _loaded_endpoints(session)[tenant_of(row)] = [_Listener(*endpoint) for endpoint in endpoints]

    load_with(
        model, _LOCKED.where(WebhookEndpoint.organization_id == organization_id.scalar_subquery()), receive
    )


def is_listening(tenant: Tenant) -> bool:
    """Return whether a tenant has an enabled endpoint."""
    return bool(_load_endpoints(tenant))


def is_heard(event_type: str, tenant: Tenant) -> bool:
    """Return whether an enabled endpoint of a tenant listens to an event: if not, nothing is to be stored."""
    return bool(_list_listeners(event_type, tenant))


def publish(event_type: str, row: Owned, status: str, path: str, **fields: Any) -> None:
    """Queue an event about a row for every endpoint of its tenant that listens to it.

    The arguments are those of `publish_to`.
    """
    publish_to(tenant_of(row), event_type, row, status, path, **fields)


def publish_to(
    tenant: Tenant, event_type: str, row: Identified, status: str, path: str, **fields: Any
) -> None:
    """Queue an event about a row for every endpoint of a tenant that listens to it.

    Call it after the change was flushed. The deliveries are inserted with the next flush, those of a batch
    together.

    Args:
        tenant: The tenant whose endpoints receive the event.
        event_type: The type of the event, for example `generation.completed`.
        row: The row that changed.
        status: The new status of the row.
        path: The path of the row in the API.
        fields: Further fields of `data`: values of JSON, and ids.
    """
    listeners = _list_listeners(event_type, tenant)
    if not listeners:
        return
    try:
        payload = _build_payload(tenant, event_type, row, status, path, fields)
    except InvalidMessage as error:
        # The change that the event is about stays valid.
        logger.error("webhook message not sent: %s", error)
        return
    message_id = f"msg_{new_id().hex}"
    for listener in listeners:
        values = _build_delivery(listener, message_id, payload)
        if not insert_later(_INSERT, values):
            insert_row(WebhookDelivery(**values))
    after_commit(WEBHOOKS.notify)


def enqueue_test_event(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a test event for one locked endpoint."""
    path = f"/api/v1/webhook-endpoints/{endpoint.id}"
    payload = _build_payload(tenant_of(endpoint), TEST_EVENT, endpoint, "test", path, {})
    delivery = WebhookDelivery(**_build_delivery(endpoint, f"msg_{new_id().hex}", payload))
    current_session().add(delivery)
    current_session().flush()
    after_commit(WEBHOOKS.notify)
    return delivery


def build_body(payload: dict[str, Any], public_url: str) -> dict[str, Any]:
    """Return the body of a message: the stored payload with an absolute `url` instead of a path."""
    return {**payload, "data": {**payload["data"], "url": public_url + payload["data"]["url"]}}


def encode_body(payload: dict[str, Any], public_url: str) -> str:
    """Return the body as the JSON text that is signed and sent. Each attempt sends the same text."""
    return orjson.dumps(build_body(payload, public_url)).decode()


def _list_listeners(event_type: str, tenant: Tenant) -> list[_Listener]:
    return [listener for listener in _load_endpoints(tenant) if event_type in listener.event_types]


def _load_endpoints(tenant: Tenant) -> list[_Listener]:
    """Return the enabled endpoints of a tenant, locked, with one statement per transaction."""
    loaded = _loaded_endpoints(current_session())
    if tenant not in loaded:
        query, of_tenant = _OF_ORGANIZATION, {"organization_id": tenant.organization_id}
        if tenant.organization_id is None:
            query, of_tenant = _PERSONAL, {"owner_id": tenant.owner_id}
        # The connection is faster than the session, which would set up the loading of entities.
        rows = current_session().connection().execute(query, of_tenant)
        loaded[tenant] = [_Listener(*row) for row in rows]
    return loaded[tenant]


def _loaded_endpoints(session: Session | EventLoopSession) -> dict[Tenant, list[_Listener]]:
    loaded: dict[Tenant, list[_Listener]] = session.info.setdefault(_LOADED, {})
    return loaded


def _forget_endpoints(session: Session, _transaction: object) -> None:
    session.info.pop(_LOADED, None)


# The rollback of a savepoint releases the locks that were taken since.
event.listen(Session, "after_soft_rollback", _forget_endpoints)


def _build_payload(
    tenant: Tenant, event_type: str, row: Identified, status: str, path: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": str(row.id),
        "organization_id": str(tenant.organization_id) if tenant.organization_id else None,
        "status": str(status),
        "url": path,
    }
    data |= {name: str(value) if isinstance(value, UUID) else value for name, value in fields.items()}
    payload = {"type": event_type, "timestamp": format_timestamp(utc_now()), "data": data}
    # The URL of the server is not known here, and is added when the message is sent.
    if mismatch := find_mismatch(build_body(payload, "https://example.com")):
        raise InvalidMessage(f"{event_type}: {mismatch}")
    return payload


def format_timestamp(timestamp: datetime) -> str:
    """Return a time as messages contain it."""
    return timestamp.isoformat(timespec="microseconds")[:-6] + "Z"


def due_now(delivery: str) -> datetime | None:
    """Return the `next_attempt_at` of a message that is queued, None for one that the client polls."""
    return None if delivery == DeliveryMode.PULL else utc_now()


def _build_delivery(
    endpoint: WebhookEndpoint | _Listener, message_id: str, payload: dict[str, Any]
) -> dict[str, Any]:
    return {
        "endpoint_id": endpoint.id,
        "next_attempt_at": due_now(endpoint.delivery),
        "message_id": message_id,
        "event_type": payload["type"],
        "payload": payload,
    }
