"""Credits through the API: the ledger that a customer reads, and many orders at once on few credits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from db.migrations import upgrade
from db.models import CreditMovement, Generation, Subscription
from db.session import Database, make_engine
from handlers.app import Application
from studio.media.storage import LocalDisk
from tests import factories
from tests.api.conftest import Client
from tests.contract.run import fresh_database
from tests.production import Production, make_production
from tests.serving import bearer

CREDITS, ORDERS = 10, 50


def test_the_ledger_tells_what_was_paid_and_paid_back(
    client_of: Callable[..., Client], production: Production
) -> None:
    client, usage = client_of(production.owner), f"/subscriptions/{production.subscription.id}/usage"
    order = {"product_id": str(production.product.id), "batch_size": 3}
    path = f"/generations/?organization_id={production.organization.id}"
    generation_id = client("POST", path, order).json()["id"]
    client("POST", f"/generations/{generation_id}/cancel")
    subscription = client("GET", f"/subscriptions/{production.subscription.id}").json()
    listed = client("GET", f"{usage}?sort=created_at").json()
    entries = [(row["kind"], row["amount"], row["generation_id"]) for row in listed["data"]]
    assert entries == [("charge", 3, generation_id), ("refund", -3, generation_id)]
    assert {row["period_start"] for row in listed["data"]} == {subscription["start_date"]}
    assert sum(row["amount"] for row in listed["data"]) == subscription["credits_used"] == 0


def test_the_ledger_of_others_looks_like_none(
    client_of: Callable[..., Client], superuser: Client, production: Production
) -> None:
    usage = f"/subscriptions/{production.subscription.id}/usage"
    assert client_of(factories.make_user())("GET", usage).status == 404
    assert superuser("GET", usage).status == 200


@pytest.fixture
def committed(
    application: Application, database_kind: str, database_url: str, storage: LocalDisk, tmp_path: Path
) -> Iterator[tuple[Client, Database, Production]]:
    """The server on a database of its own, on which every request has a connection of its own and commits."""
    with fresh_database(database_kind, tmp_path) as url:
        upgrade(url)
        database = Database(make_engine(url, pool_size=8))
        with database.transaction(write=True):
            production = make_production(storage, None)
            headers = bearer(application, production.owner)
        with application.database.switched_to(database):
            yield Client(application, headers), database, production
        database.dispose()


def test_fifty_orders_at_once_on_credit_for_ten_are_ten(
    committed: tuple[Client, Database, Production],
) -> None:
    client, database, production = committed
    with database.transaction(write=True) as writing:
        writing.get_one(Subscription, production.subscription.id).credits_total = CREDITS
    path, order = (
        f"/generations/?organization_id={production.organization.id}",
        {"product_id": str(production.product.id)},
    )
    together = threading.Barrier(ORDERS)

    def send(_number: int) -> tuple[int, str | None]:
        together.wait()
        reply = client("POST", path, order)
        return reply.status, reply.json().get("code")

    with ThreadPoolExecutor(ORDERS) as pool:
        replies = sorted(pool.map(send, range(ORDERS)))
    assert replies == [(202, None)] * CREDITS + [(409, "out_of_credits")] * (ORDERS - CREDITS)
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == CREDITS
        assert reading.scalar(select(func.sum(CreditMovement.amount))) == CREDITS
        assert reading.scalar(select(Subscription.credits_used)) == CREDITS
