"""The checks of `make shop`: each webhook once and signed, and the change feed equal to the tables."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from db.base import Owned
from db.models import (
    Export,
    Generation,
    Guidelines,
    Look,
    Prediction,
    Product,
    ProductImage,
    ProductImport,
    ResolutionPreset,
    Shooting,
    Shot,
    Subscription,
)
from db.session import Database
from tests.resilience.shop.client import Row, ShopClient
from tools.servers.http_recorder import RecordedRequest, StubResponse

FED: Mapping[str, type[Owned]] = {
    "export": Export,
    "generation": Generation,
    "guidelines": Guidelines,
    "look": Look,
    "prediction": Prediction,
    "product": Product,
    "product_image": ProductImage,
    "product_import": ProductImport,
    "resolution_preset": ResolutionPreset,
    "shooting": Shooting,
    "shot": Shot,
}
"""The models of all rows that the shop makes, by their type in the change feed."""
ROWS_OF_EVENTS: Mapping[str, type[Owned]] = {
    "import.completed": ProductImport,
    "generation.completed": Generation,
    "prediction.approved": Prediction,
    "shot.approved": Shot,
    "shot.exported": Shot,
    "export.completed": Export,
}
"""The events that the shop receives. There is one about each row of a model at the end of the run."""


LOST, DUPLICATED, WRONG = "lost", "duplicated", "wrong"


class Failure(NamedTuple):
    """Something that is wrong at the end of the run."""

    kind: str
    """`LOST`, `DUPLICATED` or `WRONG`."""
    count: int
    text: str


class WebhookInbox:
    """The shop's server: it verifies each message with the Standard Webhooks library when it arrives."""

    def __init__(self) -> None:
        self.secret: str | None = None
        self.messages: dict[str, Row] = {}
        """The events by the id of their message: a message may arrive more than once."""
        self.received = 0
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def respond(self, request: RecordedRequest) -> StubResponse:
        """Verify and store a message."""
        message_id = request.headers.get("webhook-id", "")
        with self._lock:
            self.received += 1
            try:
                assert self.secret is not None
                event = Webhook(self.secret).verify(request.body, dict(request.headers))
            except (AssertionError, WebhookVerificationError) as error:
                self.failures.append(f"webhook {message_id}: {error!r}")
                return StubResponse(400)
            if self.messages.setdefault(message_id, event) != event:
                self.failures.append(f"webhook {message_id} arrived with two contents")
        return StubResponse(204)

    def count_events(self) -> Counter[tuple[str, str]]:
        """Return how many messages there are about each row, by event type and id."""
        with self._lock:
            return Counter((event["type"], event["data"]["id"]) for event in self.messages.values())


def list_ids(database: Database, model: type[Owned], organization_id: str) -> set[str]:
    """Return the ids of the rows of the shop in a table."""
    with database.transaction(write=False) as reading:
        query = select(model.id).where(model.organization_id == UUID(organization_id))
        return {str(row_id) for row_id in reading.scalars(query)}


def list_expected_events(database: Database, organization_id: str) -> set[tuple[str, str]]:
    """Return type and id of each event that the shop receives exactly once."""
    return {
        (event_type, row_id)
        for event_type, model in ROWS_OF_EVENTS.items()
        for row_id in list_ids(database, model, organization_id)
    }


def find_event_failures(inbox: WebhookInbox, expected: Iterable[tuple[str, str]]) -> Iterator[Failure]:
    """Yield what is wrong with the received events."""
    yield from (Failure(WRONG, 1, text) for text in inbox.failures)
    counts, expected = inbox.count_events(), set(expected)
    yield from (Failure(LOST, 1, f"no event: {event}") for event in sorted(expected - counts.keys()))
    yield from (Failure(WRONG, 1, f"event of no row: {event}") for event in sorted(counts.keys() - expected))
    for event, count in counts.items():
        if count > 1:
            yield Failure(DUPLICATED, count - 1, f"event {count} times: {event}")


def read_changes(client: ShopClient, cursor: str) -> list[Row]:
    """Return the changes after a cursor."""
    changes: list[Row] = []
    while True:
        page = client.get("/changes/", organization_id=client.organization_id, cursor=cursor, limit=100)
        changes += page["data"]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            return changes


def find_feed_failures(changes: list[Row], database: Database, organization_id: str) -> Iterator[Failure]:
    """Yield how the change feed differs from the tables."""
    counts = Counter((row["resource_type"], row["change"], row["resource_id"]) for row in changes)
    for unknown in {kind for kind, *_ in counts} - FED.keys():
        yield Failure(WRONG, 1, f"unknown type in the feed: {unknown}")
    for kind, model in FED.items():
        stored = list_ids(database, model, organization_id)
        created = {row_id for each, change, row_id in counts if (each, change) == (kind, "created")}
        deleted = {row_id for each, change, row_id in counts if (each, change) == (kind, "deleted")}
        updated = {row_id for each, change, row_id in counts if (each, change) == (kind, "updated")}
        if lost := stored - (created - deleted):
            yield Failure(LOST, len(lost), f"of {len(stored)} rows, not in the feed: {kind} {min(lost)}")
        if surplus := (created - deleted) - stored:
            yield Failure(WRONG, len(surplus), f"rows of the feed that do not exist: {kind} {min(surplus)}")
        with database.transaction(write=False) as reading:
            moved = select(model.id).where(
                model.organization_id == UUID(organization_id), model.updated_at > model.created_at
            )
            unseen = {str(row_id) for row_id in reading.scalars(moved)} - updated
        # A row can be created and changed in one transaction, with the times of the servers' clocks.
        if kind in ("prediction", "shot") and unseen:
            yield Failure(LOST, len(unseen), f"updates that are not in the feed: {kind} {min(unseen)}")
    for key, count in counts.items():
        if key[1] != "updated" and count > 1:
            yield Failure(DUPLICATED, count - 1, f"in the feed {count} times: {' '.join(key)}")


def find_row_failures(
    database: Database, organization_id: str, expected: Mapping[str, int]
) -> Iterator[Failure]:
    """Yield what was lost, duplicated or charged wrongly.

    Args:
        expected: The number of rows by their type in the change feed.
    """
    for kind, count in expected.items():
        found = len(list_ids(database, FED[kind], organization_id))
        if found != count:
            text = f"{found} rows instead of {count}: {kind}"
            yield Failure(LOST if found < count else DUPLICATED, abs(found - count), text)
    of_shop = UUID(organization_id)
    with database.transaction(write=False) as reading:

        def count_rows(model: Any, *conditions: Any) -> int:
            query = select(func.count()).select_from(model).where(model.organization_id == of_shop)
            return reading.scalar(query.where(*conditions)) or 0

        left = {
            "generation": count_rows(Generation, Generation.status != "completed"),
            "prediction": count_rows(Prediction, Prediction.status != "exported"),
            "shot": count_rows(Shot, Shot.status != "exported"),
        }
        cost = select(func.sum(Generation.cost_credits)).where(Generation.organization_id == of_shop)
        payers = select(Generation.subscription_id).where(Generation.organization_id == of_shop)
        used = select(func.sum(Subscription.credits_used)).where(Subscription.id.in_(payers))
        charges = reading.scalar(cost), reading.scalar(used)
    for kind, count in left.items():
        if count:
            yield Failure(LOST, count, f"rows in another state: {kind}")
    if charges[0] != charges[1]:
        yield Failure(WRONG, 1, f"{charges[1]} credits are used instead of {charges[0]}")
