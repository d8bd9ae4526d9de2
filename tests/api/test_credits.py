"""Credits through the API: the ledger that a customer reads, and many orders at once on few credits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from db.base import new_id, utc_now
from db.models import CreditMovement, Generation, Subscription
from db.session import Database
from studio import billing
from studio.jobs import queue
from studio.media.storage import LocalDisk
from tests import factories
from tests.api.conftest import Client, Committed
from tests.api.workflow import refusal
from tests.contract.mini.asking import Reply
from tests.production import LEASE, Production
from tests.racing import at_once

CREDITS, ORDERS = 10, 50
OTHER_WORK, COST = 100, 3
PAID, PAID_BACK = [("charge", COST)], [("charge", COST), ("refund", -COST)]
ROUNDS = 4
"""How often a race is run, because either may win."""


class Ordering(NamedTuple):
    """Somebody who orders pictures and cancels them, and what the books say of it."""

    client: Client
    database: Database
    production: Production
    storage: LocalDisk

    def order(self, **sent: Any) -> str:
        """Return the id of a generation that is paid for and waits."""
        path = f"/generations/?organization_id={self.production.organization.id}"
        asked = {"product_id": str(self.production.product.id), "batch_size": COST}
        reply = self.client("POST", path, asked, **sent)
        assert reply.status == 202, reply.body
        return str(reply.json()["id"])

    def cancel(self, generation_id: str) -> Reply:
        return self.client("POST", f"/generations/{generation_id}/cancel")

    def status(self, generation_id: str) -> str:
        return str(self.client("GET", f"/generations/{generation_id}").json()["status"])

    def claim(self) -> queue.Claim | None:
        return queue.claim_next(self.database, new_id().hex, LEASE)

    def entries(self, generation_id: str) -> list[tuple[str, int]]:
        """Return kind and amount of all that was booked for a generation, the oldest first.

        Whatever happened, the entries of all work add up to the balance.
        """
        with self.database.transaction(write=False) as reading:
            booked = list(reading.scalars(select(CreditMovement).order_by(CreditMovement.id)))
            used = reading.scalar(select(Subscription.credits_used))
        assert sum(entry.amount for entry in booked) == used
        mine = [entry for entry in booked if entry.generation_id == UUID(generation_id)]
        return [(entry.kind, entry.amount) for entry in mine]


def with_other_work(ordering: Ordering) -> Ordering:
    """Somebody with more work in hand, so that there is something for a second refund to take."""
    production = ordering.production
    with ordering.database.transaction(write=True) as writing:
        writing.get_one(Subscription, production.subscription.id).credits_total = 1000
        billing.charge(production.organization.id, production.owner.id, OTHER_WORK, new_id())
    return ordering


@pytest.fixture
def ordering(
    client_of: Callable[..., Client], database: Database, production: Production, storage: LocalDisk
) -> Ordering:
    return with_other_work(Ordering(client_of(production.owner), database, production, storage))


@pytest.fixture
def racing(committed: Committed, storage: LocalDisk) -> Ordering:
    """Somebody whose requests have connections of their own and commit."""
    return with_other_work(Ordering(*committed, storage))


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
    asked = {"product_id": str(production.product.id)}
    replies = at_once(*[lambda: client("POST", path, asked)] * ORDERS)
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
    replies = at_once(*[lambda: client("POST", path, {"num_predictions": 1})] * 4)
    assert [reply.status for reply in replies] == [202] * 4
    assert sorted(reply.json()["accepted_count"] for reply in replies) == [0, 0, 0, 3]
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == 3
        assert reading.scalar(select(Subscription.credits_used)) == 3


def test_s20_a_generation_that_is_canceled_twice_is_paid_back_once(ordering: Ordering) -> None:
    generation_id = ordering.order()
    assert ordering.entries(generation_id) == PAID
    for _ in range(2):
        assert ordering.cancel(generation_id).status == 200
        assert ordering.entries(generation_id) == PAID_BACK


def test_s20_a_generation_that_many_cancel_at_once_is_paid_back_once(racing: Ordering) -> None:
    for count in [2, 20] * ROUNDS:
        generation_id = racing.order()
        replies = at_once(*[partial(racing.cancel, generation_id)] * count)
        assert [(reply.status, reply.json()["status"]) for reply in replies] == [(200, "canceled")] * count
        assert racing.entries(generation_id) == PAID_BACK


def test_s20_two_cancels_that_race_the_worker_who_begins_pay_back_only_what_was_not_begun(
    racing: Ordering,
) -> None:
    for _ in range(ROUNDS):
        generation_id = racing.order()
        cancel = partial(racing.cancel, generation_id)
        claim, *replies = at_once(racing.claim, cancel, cancel)
        statuses = {(reply.status, reply.json()["status"]) for reply in replies}
        assert statuses == {(200, "canceling" if claim else "canceled")}
        assert racing.entries(generation_id) == (PAID if claim else PAID_BACK)
        if claim:
            # It stays paid when its worker has stopped, and when somebody cancels it once more.
            queue.release(racing.database, claim)
            assert cancel().json()["status"] == "canceled"
            assert racing.entries(generation_id) == PAID


def finish(racing: Ordering, claim: queue.Claim) -> None:
    queue.finish(racing.database, racing.storage, claim, [])


def fail(racing: Ordering, claim: queue.Claim) -> None:
    queue.fail(racing.database, claim, queue.INTERNAL_ERROR)


def give_back(racing: Ordering, claim: queue.Claim) -> None:
    queue.release(racing.database, claim)


def test_s20_two_cancels_that_race_the_end_of_the_work_pay_back_at_most_once(racing: Ordering) -> None:
    """Whoever cancels before the end finds it at work: it is canceled and stays paid."""
    for end, status_when_late, entries_when_late in (
        (finish, "completed", PAID),
        (fail, "failed", PAID_BACK),
        (give_back, "canceled", PAID_BACK),
    ) * ROUNDS:
        generation_id, claim = racing.order(), racing.claim()
        assert claim is not None
        cancel = partial(racing.cancel, generation_id)
        _, *replies = at_once(partial(end, racing, claim), cancel, cancel)
        was_at_work = any(reply.json()["status"] == "canceling" for reply in replies)
        expected = PAID if was_at_work else entries_when_late
        assert racing.entries(generation_id) == expected
        assert racing.status(generation_id) == ("canceled" if was_at_work else status_when_late)
        cancel()
        assert racing.entries(generation_id) == expected


def test_s20_two_cancels_that_race_the_deadline_pay_back_once(racing: Ordering) -> None:
    for _ in range(ROUNDS):
        generation_id = racing.order()
        with racing.database.transaction(write=True) as writing:
            late = update(Generation).where(Generation.id == UUID(generation_id))
            writing.execute(late.values(deadline_at=utc_now() - timedelta(seconds=1)))
        cancel = partial(racing.cancel, generation_id)
        _, *replies = at_once(partial(queue.settle_overdue, racing.database), cancel, cancel)
        told = {refusal(reply) if reply.status != 200 else reply.json()["status"] for reply in replies}
        assert told in ({"canceled"}, {(409, "invalid_transition")})
        assert racing.entries(generation_id) == PAID_BACK


def test_s20_an_order_that_comes_again_after_its_cancel_is_neither_paid_nor_paid_back_again(
    ordering: Ordering,
) -> None:
    same = {"headers": {"idempotency-key": "the same order"}}
    generation_id = ordering.order(**same)
    assert ordering.order(**same) == generation_id
    assert ordering.entries(generation_id) == PAID
    ordering.cancel(generation_id)
    assert ordering.order(**same) == generation_id
    ordering.cancel(generation_id)
    assert ordering.entries(generation_id) == PAID_BACK
    with ordering.database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == 1
        assert reading.scalar(select(Subscription.credits_used)) == OTHER_WORK
