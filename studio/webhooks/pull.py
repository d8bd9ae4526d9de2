"""Messages that wait at an endpoint without a URL until the client polls and acknowledges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, literal_column, select, update

from db.base import utc_now
from db.errors import Conflict
from db.models.webhooks import DeliveryMode, DeliveryStatus, WebhookDelivery, WebhookEndpoint
from db.session import current_session
from studio.infrastructure.change_hub import Transaction


class WrongDeliveryMode(Conflict):
    """The endpoint has another delivery than the operation needs."""

    code = "wrong_delivery_mode"
    default_detail = "The endpoint has `delivery` `push`: its messages are sent to its `url`"


@dataclass(frozen=True)
class WaitingMessages:
    """Whether messages wait at an endpoint, for long polling."""

    endpoint_id: UUID
    is_final: bool
    """Whether a message waits."""

    @property
    def watched_id(self) -> UUID:
        """The id of the endpoint."""
        return self.endpoint_id

    @property
    def revision(self) -> int:
        """1 once a message waits."""
        return int(self.is_final)

    @staticmethod
    def load_changed(
        transaction: Transaction, known: Mapping[UUID, int]
    ) -> Mapping[UUID, WaitingMessages | None]:
        """Return a state for each of these endpoints at which a message waits, None for deleted ones."""
        with transaction(False) as reading:
            # unscoped: the request of each listener has checked its permission
            endpoints = select(WebhookEndpoint.id).where(WebhookEndpoint.id.in_(known))  # unscoped: see above
            # One probe of the index per endpoint, however many messages wait.
            waits = select(WebhookDelivery.id).where(_waits_at(WebhookEndpoint.id)).exists()
            found = {row[0]: row[1] for row in reading.execute(endpoints.add_columns(waits))}
        deleted: dict[UUID, WaitingMessages | None] = dict.fromkeys(known.keys() - found.keys())
        return deleted | {
            id_: WaitingMessages(id_, is_final=True) for id_, waiting in found.items() if waiting
        }


def list_waiting(endpoint: WebhookEndpoint, limit: int) -> Sequence[WebhookDelivery]:
    """Return the oldest messages that wait, in the order of their events.

    Raises:
        WrongDeliveryMode: The endpoint has a URL.
    """
    require_pull(endpoint)
    return current_session().scalars(select_waiting(endpoint.id).limit(limit)).all()


def select_waiting(endpoint_id: UUID) -> Select[WebhookDelivery]:
    """Return the query of the messages that wait at an endpoint. Ids of messages grow with time."""
    return select(WebhookDelivery).where(_waits_at(endpoint_id)).order_by(WebhookDelivery.message_id)


def acknowledge_webhook_messages(endpoint: WebhookEndpoint, message_ids: Sequence[str]) -> int:
    """Mark messages of a locked endpoint as delivered; return how many of them waited.

    Raises:
        WrongDeliveryMode: The endpoint has a URL.
    """
    require_pull(endpoint)
    acknowledged = update(WebhookDelivery).where(
        _waits_at(endpoint.id), WebhookDelivery.message_id.in_(message_ids)
    )
    values = {"status": DeliveryStatus.DELIVERED, "delivered_at": utc_now()}
    rows = current_session().scalars(acknowledged.values(values).returning(WebhookDelivery.id))
    return len(rows.all())


def require_pull(endpoint: WebhookEndpoint) -> None:
    """Check that clients poll the messages of an endpoint.

    Raises:
        WrongDeliveryMode: The endpoint has a URL.
    """
    if endpoint.delivery != DeliveryMode.PULL:
        raise WrongDeliveryMode()


def _waits_at(endpoint_id: Any) -> ColumnElement[bool]:
    # As in the index. A literal, because the generic plan of a prepared statement of PostgreSQL can use a
    # partial index only if the statement itself has its condition.
    is_pending = WebhookDelivery.status == literal_column("'pending'")
    return and_(
        WebhookDelivery.endpoint_id == endpoint_id, is_pending, WebhookDelivery.next_attempt_at.is_(None)
    )
