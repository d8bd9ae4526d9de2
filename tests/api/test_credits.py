"""Credits through the API: the ledger that a customer reads, and many orders at once on few credits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from db.models import CreditMovement, Generation, Subscription
from tests import factories
from tests.api.conftest import Client, Committed
from tests.contract.mini.asking import Reply
from tests.production import Production

CREDITS, ORDERS = 10, 50


def at_once(count: int, send: Callable[[], Reply]) -> list[Reply]:
    """The answers to requests that are sent together."""
    together = threading.Barrier(count)

    def wait_and_send(_number: int) -> Reply:
        together.wait()
        return send()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(wait_and_send, range(count)))


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


def test_s01_the_ledger_of_others_looks_like_none(
    client_of: Callable[..., Client], superuser: Client, production: Production
) -> None:
    usage = f"/subscriptions/{production.subscription.id}/usage"
    assert client_of(factories.make_user())("GET", usage).status == 404
    assert superuser("GET", usage).status == 200


def test_s20_fifty_orders_at_once_on_credit_for_ten_are_ten(
    committed: Committed,
) -> None:
    client, database, production = committed
    with database.transaction(write=True) as writing:
        writing.get_one(Subscription, production.subscription.id).credits_total = CREDITS
    path = f"/generations/?organization_id={production.organization.id}"
    replies = at_once(ORDERS, lambda: client("POST", path, {"product_id": str(production.product.id)}))
    told = sorted((reply.status, reply.json().get("code")) for reply in replies)
    assert told == [(202, None)] * CREDITS + [(409, "out_of_credits")] * (ORDERS - CREDITS)
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == CREDITS
        assert reading.scalar(select(func.sum(CreditMovement.amount))) == CREDITS
        assert reading.scalar(select(Subscription.credits_used)) == CREDITS


def test_s20_four_batches_at_once_generate_each_shot_once(committed: Committed) -> None:
    client, database, production = committed
    with database.transaction(write=True):
        for _ in range(2):
            factories.make_shot(production.look)
    path = f"/shootings/{production.shooting.id}/generate"
    replies = at_once(4, lambda: client("POST", path, {"num_predictions": 1}))
    assert [reply.status for reply in replies] == [202] * 4
    assert sorted(reply.json()["accepted_count"] for reply in replies) == [0, 0, 0, 3]
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == 3
        assert reading.scalar(select(Subscription.credits_used)) == 3
