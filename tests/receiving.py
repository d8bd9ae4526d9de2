"""A client's server that gets webhooks, and how tests let events happen, send them and look."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from standardwebhooks.webhooks import Webhook

from db.models import Shot, WebhookDelivery, WebhookEndpoint
from db.session import Database
from studio.outbound import Outbound
from studio.settings import Settings
from studio.webhooks import outbox, senders
from tests import factories
from tests.listening import Answer, Asked, Listening

SETTINGS = Settings(environment="test", secret_key="k" * 40, public_url="https://api.example.com")
START = datetime(2027, 3, 1, 12, tzinfo=UTC)


class Receiver:
    """A client's server: it answers as planned, then 200, and keeps what it got."""

    def __init__(self) -> None:
        self.planned: list[Answer] = []
        self.pause_seconds = 0.0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.at: Listening
        self._guard, self._inside = threading.Lock(), 0
        self.most_at_once = 0

    def respond(self, _asked: Asked) -> Answer:
        with self._guard:
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
        time.sleep(self.pause_seconds)
        self.may_answer.wait(10)
        with self._guard:
            self._inside -= 1
            return self.planned.pop(0) if self.planned else Answer(204)

    @property
    def ids(self) -> list[str]:
        return [asked.headers["webhook-id"] for asked in self.at.asked]


def endpoint_at(receiver: Receiver, **values: Any) -> WebhookEndpoint:
    return factories.make_webhook_endpoint(url=f"{receiver.at.url}/hooks", **values)


def happen(database: Database, endpoint: WebhookEndpoint, event_type: str = "generation.completed") -> None:
    """Let an event happen to a row of the endpoint's scope."""
    with database.transaction(write=True):
        row = Shot(id=endpoint.id, owner_id=endpoint.owner_id, organization_id=endpoint.organization_id)
        outbox.publish(event_type, row, "completed", f"/api/v1/generations/{row.id}")


def send(database: Database, *receivers: Receiver) -> bool:
    outbound = Outbound([receiver.at.host for receiver in receivers])
    return senders.send_next(SETTINGS, database, outbound, "test")


def read(database: Database, model: type[Any], **columns: Any) -> list[Any]:
    with database.transaction(write=False) as reading:
        query = select(model).filter_by(**columns).order_by(model.id)
        return list(reading.scalars(query.execution_options(populate_existing=True)))


def only_delivery(database: Database) -> WebhookDelivery:
    (delivery,) = read(database, WebhookDelivery)
    return delivery


def state(database: Database, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    (found,) = read(database, WebhookEndpoint, id=endpoint.id)
    return found


def verified(asked: Asked, secret: str) -> Any:
    return Webhook(secret).verify(asked.body, dict(asked.headers))
