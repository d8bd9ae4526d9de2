"""A client's server that receives webhooks, and helpers that publish events, send and read deliveries."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from standardwebhooks.webhooks import Webhook

from db.models import Shot, WebhookDelivery, WebhookEndpoint
from db.session import Database
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.settings import Settings
from studio.webhooks import dispatcher, outbox
from tests.support import factories
from tests.support.queues import build_worker
from tools.servers.http_recorder import HttpRecorder, RecordedRequest, StubResponse

SETTINGS = Settings(environment="test", secret_key="k" * 40, public_url="https://api.example.com")
START = datetime(2027, 3, 1, 12, tzinfo=UTC)


class WebhookReceiver:
    """A client's server: it records requests and sends `responses` in order, then 204."""

    def __init__(self) -> None:
        self.responses: list[StubResponse] = []
        self.pause_seconds = 0.0
        self.may_respond = threading.Event()
        self.may_respond.set()
        self.recorder: HttpRecorder
        self._guard, self._inside = threading.Lock(), 0
        self.max_concurrent = 0

    def respond(self, _request: RecordedRequest) -> StubResponse:
        """Return the next response, after `pause_seconds` and once `may_respond` is set."""
        with self._guard:
            self._inside += 1
            self.max_concurrent = max(self.max_concurrent, self._inside)
        time.sleep(self.pause_seconds)
        self.may_respond.wait(120)  # a test that fails ends, too
        with self._guard:
            self._inside -= 1
            return self.responses.pop(0) if self.responses else StubResponse(204)

    @property
    def ids(self) -> list[str]:
        """The ids of the received messages."""
        return [request.headers["webhook-id"] for request in self.recorder.requests]


def make_endpoint(receiver: WebhookReceiver, **values: Any) -> WebhookEndpoint:
    return factories.make_webhook_endpoint(url=f"{receiver.recorder.url}/hooks", **values)


def publish_event(database: Database, endpoint: WebhookEndpoint) -> None:
    """Publish an event about a row of the endpoint's tenant."""
    with database.transaction(write=True):
        row = Shot(id=endpoint.id, owner_id=endpoint.owner_id, organization_id=endpoint.organization_id)
        path = f"/api/v1/generations/{row.id}"
        outbox.publish("generation.completed", row, "completed", path, shot_id=None, product=None)


def send_next_delivery(database: Database, *receivers: WebhookReceiver) -> bool:
    outbound = SafeHttpClient([receiver.recorder.host for receiver in receivers])
    return dispatcher.send_next(SETTINGS, build_worker(database), outbound)


def list_rows(database: Database, model: type[Any], **columns: Any) -> list[Any]:
    with database.transaction(write=False) as reading:
        query = select(model).filter_by(**columns).order_by(model.id)
        return list(reading.scalars(query.execution_options(populate_existing=True)))


def get_only_delivery(database: Database) -> WebhookDelivery:
    (delivery,) = list_rows(database, WebhookDelivery)
    return delivery


def get_endpoint(database: Database, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    (found,) = list_rows(database, WebhookEndpoint, id=endpoint.id)
    return found


def verify_signature(request: RecordedRequest, secret: str) -> Any:
    return Webhook(secret).verify(request.body, dict(request.headers))
