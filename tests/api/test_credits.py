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
from studio.generations.worker import queue
from studio.media.storage import LocalDisk
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.client import ClientResponse
from tests.support.concurrency import run_concurrently
from tests.support.generations import status_and_code
from tests.support.scenarios import LEASE, PhotographedProduct

CREDITS, REQUESTS = 10, 50
OTHER_WORK, COST = 100, 3
CHARGED, REFUNDED = [("charge", COST)], [("charge", COST), ("refund", -COST)]
ROUNDS = 4
"""How often a race is run, because either may win."""


class BillingScenario(NamedTuple):
    """Somebody who orders pictures and cancels them, and what the books say of it."""

    client: Client
    database: Database
    scenario: PhotographedProduct
    storage: LocalDisk

    def request_generation(self, **params: Any) -> str:
        """Return the id of a generation that is paid for and waits."""
        path = f"/generations/?organization_id={self.scenario.organization.id}"
        asked = {"product_id": str(self.scenario.product.id), "batch_size": COST}
        reply = self.client("POST", path, asked, **params)
        assert reply.status == 202, reply.body
        return str(reply.json()["id"])

    def cancel(self, generation_id: str) -> ClientResponse:
        return self.client("POST", f"/generations/{generation_id}/cancel")

    def status(self, generation_id: str) -> str:
        return str(self.client("GET", f"/generations/{generation_id}").json()["status"])

    def acquire_lease(self) -> queue.Lease | None:
        return queue.lease_next(self.database, new_id().hex, LEASE)

    def list_entries(self, generation_id: str) -> list[tuple[str, int]]:
        """Return kind and amount of all that was booked for a generation, the oldest first.

        Whatever happened, the entries of all work add up to the balance.
        """
        with self.database.transaction(write=False) as reading:
            booked = list(reading.scalars(select(CreditMovement).order_by(CreditMovement.id)))
            used = reading.scalar(select(Subscription.credits_used))
        assert sum(entry.amount for entry in booked) == used
        mine = [entry for entry in booked if entry.generation_id == UUID(generation_id)]
        return [(entry.kind, entry.amount) for entry in mine]


def add_other_work(billing_scenario: BillingScenario) -> BillingScenario:
    """Somebody with more work in hand, so that there is something for a second refund to take."""
    production = billing_scenario.scenario
    with billing_scenario.database.transaction(write=True) as writing:
        writing.get_one(Subscription, production.subscription.id).credits_total = 1000
        billing.charge(production.organization.id, production.owner.id, OTHER_WORK, new_id())
    return billing_scenario


@pytest.fixture
def billing_scenario(
    client_for: Callable[..., Client], database: Database, scenario: PhotographedProduct, storage: LocalDisk
) -> BillingScenario:
    return add_other_work(BillingScenario(client_for(scenario.owner), database, scenario, storage))


@pytest.fixture
def committing_scenario(committing_server: CommittingServer, storage: LocalDisk) -> BillingScenario:
    """Somebody whose requests have connections of their own and commit."""
    return add_other_work(BillingScenario(*committing_server, storage))


def test_the_ledger_tells_what_was_paid_and_paid_back(
    client_for: Callable[..., Client], scenario: PhotographedProduct
) -> None:
    client, usage = client_for(scenario.owner), f"/subscriptions/{scenario.subscription.id}/usage"
    order = {"product_id": str(scenario.product.id), "batch_size": 3}
    path = f"/generations/?organization_id={scenario.organization.id}"
    generation_id = client("POST", path, order).json()["id"]
    client("POST", f"/generations/{generation_id}/cancel")
    subscription = client("GET", f"/subscriptions/{scenario.subscription.id}").json()
    listed = client("GET", f"{usage}?sort=created_at").json()
    entries = [(row["kind"], row["amount"], row["generation_id"]) for row in listed["data"]]
    assert entries == [("charge", 3, generation_id), ("refund", -3, generation_id)]
    assert {row["period_start"] for row in listed["data"]} == {subscription["start_date"]}
    assert sum(row["amount"] for row in listed["data"]) == subscription["credits_used"] == 0


def test_s01_the_ledger_of_others_looks_like_none(
    client_for: Callable[..., Client], superuser: Client, scenario: PhotographedProduct
) -> None:
    usage = f"/subscriptions/{scenario.subscription.id}/usage"
    assert client_for(factories.make_user())("GET", usage).status == 404
    assert superuser("GET", usage).status == 200


def test_s20_fifty_orders_at_once_on_credit_for_ten_are_ten(
    committing_server: CommittingServer,
) -> None:
    client, database, production = committing_server
    with database.transaction(write=True) as writing:
        writing.get_one(Subscription, production.subscription.id).credits_total = CREDITS
    path = f"/generations/?organization_id={production.organization.id}"
    asked = {"product_id": str(production.product.id)}
    replies = run_concurrently(*[lambda: client("POST", path, asked)] * REQUESTS)
    told = sorted((reply.status, reply.json().get("code")) for reply in replies)
    assert told == [(202, None)] * CREDITS + [(409, "out_of_credits")] * (REQUESTS - CREDITS)
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == CREDITS
        assert reading.scalar(select(func.sum(CreditMovement.amount))) == CREDITS
        assert reading.scalar(select(Subscription.credits_used)) == CREDITS


def test_s20_four_batches_at_once_generate_each_shot_once(committing_server: CommittingServer) -> None:
    client, database, production = committing_server
    with database.transaction(write=True):
        for _ in range(2):
            factories.make_shot(production.look)
    path = f"/shootings/{production.shooting.id}/generate"
    replies = run_concurrently(*[lambda: client("POST", path, {"num_predictions": 1})] * 4)
    assert [reply.status for reply in replies] == [202] * 4
    assert sorted(reply.json()["accepted_count"] for reply in replies) == [0, 0, 0, 3]
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == 3
        assert reading.scalar(select(Subscription.credits_used)) == 3


def test_s20_a_generation_that_is_canceled_twice_is_paid_back_once(billing_scenario: BillingScenario) -> None:
    generation_id = billing_scenario.request_generation()
    assert billing_scenario.list_entries(generation_id) == CHARGED
    for _ in range(2):
        assert billing_scenario.cancel(generation_id).status == 200
        assert billing_scenario.list_entries(generation_id) == REFUNDED


def test_s20_a_generation_that_many_cancel_at_once_is_paid_back_once(
    committing_scenario: BillingScenario,
) -> None:
    for count in [2, 20] * ROUNDS:
        generation_id = committing_scenario.request_generation()
        replies = run_concurrently(*[partial(committing_scenario.cancel, generation_id)] * count)
        assert [(reply.status, reply.json()["status"]) for reply in replies] == [(200, "canceled")] * count
        assert committing_scenario.list_entries(generation_id) == REFUNDED


def test_s20_two_cancels_that_race_the_worker_who_begins_pay_back_only_what_was_not_begun(
    committing_scenario: BillingScenario,
) -> None:
    for _ in range(ROUNDS):
        generation_id = committing_scenario.request_generation()
        cancel = partial(committing_scenario.cancel, generation_id)
        claim, *replies = run_concurrently(committing_scenario.acquire_lease, cancel, cancel)
        statuses = {(reply.status, reply.json()["status"]) for reply in replies}
        assert statuses == {(200, "canceling" if claim else "canceled")}
        assert committing_scenario.list_entries(generation_id) == (CHARGED if claim else REFUNDED)
        if claim:
            # It stays paid when its worker has stopped, and when somebody cancels it once more.
            queue.release(committing_scenario.database, claim)
            assert cancel().json()["status"] == "canceled"
            assert committing_scenario.list_entries(generation_id) == CHARGED


def finish_generation(committing_scenario: BillingScenario, lease: queue.Lease) -> None:
    queue.try_complete(committing_scenario.database, committing_scenario.storage, lease, [])


def fail_generation(committing_scenario: BillingScenario, lease: queue.Lease) -> None:
    queue.fail(committing_scenario.database, lease, queue.INTERNAL_ERROR)


def release_lease(committing_scenario: BillingScenario, lease: queue.Lease) -> None:
    queue.release(committing_scenario.database, lease)


def test_s20_two_cancels_that_race_the_end_of_the_work_pay_back_at_most_once(
    committing_scenario: BillingScenario,
) -> None:
    """Whoever cancels before the end finds it at work: it is canceled and stays paid."""
    for end, status_when_late, entries_when_late in (
        (finish_generation, "completed", CHARGED),
        (fail_generation, "failed", REFUNDED),
        (release_lease, "canceled", REFUNDED),
    ) * ROUNDS:
        generation_id, claim = committing_scenario.request_generation(), committing_scenario.acquire_lease()
        assert claim is not None
        cancel = partial(committing_scenario.cancel, generation_id)
        _, *replies = run_concurrently(partial(end, committing_scenario, claim), cancel, cancel)
        was_at_work = any(reply.json()["status"] == "canceling" for reply in replies)
        expected = CHARGED if was_at_work else entries_when_late
        assert committing_scenario.list_entries(generation_id) == expected
        assert committing_scenario.status(generation_id) == ("canceled" if was_at_work else status_when_late)
        cancel()
        assert committing_scenario.list_entries(generation_id) == expected


def test_s20_two_cancels_that_race_the_deadline_pay_back_once(committing_scenario: BillingScenario) -> None:
    for _ in range(ROUNDS):
        generation_id = committing_scenario.request_generation()
        with committing_scenario.database.transaction(write=True) as writing:
            late = update(Generation).where(Generation.id == UUID(generation_id))
            writing.execute(late.values(deadline_at=utc_now() - timedelta(seconds=1)))
        cancel = partial(committing_scenario.cancel, generation_id)
        _, *replies = run_concurrently(
            partial(queue.expire_overdue, committing_scenario.database), cancel, cancel
        )
        told = {
            status_and_code(reply) if reply.status != 200 else reply.json()["status"] for reply in replies
        }
        assert told in ({"canceled"}, {(409, "invalid_transition")})
        assert committing_scenario.list_entries(generation_id) == REFUNDED


def test_s20_an_order_that_comes_again_after_its_cancel_is_neither_paid_nor_paid_back_again(
    billing_scenario: BillingScenario,
) -> None:
    same = {"headers": {"idempotency-key": "the same order"}}
    generation_id = billing_scenario.request_generation(**same)
    assert billing_scenario.request_generation(**same) == generation_id
    assert billing_scenario.list_entries(generation_id) == CHARGED
    billing_scenario.cancel(generation_id)
    assert billing_scenario.request_generation(**same) == generation_id
    billing_scenario.cancel(generation_id)
    assert billing_scenario.list_entries(generation_id) == REFUNDED
    with billing_scenario.database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == 1
        assert reading.scalar(select(Subscription.credits_used)) == OTHER_WORK
