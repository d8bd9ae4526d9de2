"""Credits through the API: the ledger, and concurrent requests and cancellations."""

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
from studio.billing import billing
from studio.generations.worker import queue
from studio.infrastructure.storage import LocalDisk
from tests.api.conftest import Client, CommittingServer
from tests.support import factories
from tests.support.client import ClientResponse, status_and_code
from tests.support.concurrency import run_concurrently
from tests.support.generations import limit_open_generations
from tests.support.queues import LEASE, try_record
from tests.support.scenarios import PhotographedProduct

CREDITS, REQUESTS = 10, 50
OTHER_WORK, COST = 100, 3
CHARGED, REFUNDED = [("charge", COST)], [("charge", COST), ("refund", -COST)]
ROUNDS = 4
"""Repetitions of each race, because either side can win."""


class BillingScenario(NamedTuple):
    """A client that requests and cancels generations, and the database to check the ledger."""

    client: Client
    database: Database
    scenario: PhotographedProduct
    storage: LocalDisk

    def request_generation(self, **params: Any) -> str:
        """Request a generation and return its id. It is charged and pending."""
        path = f"/generations/?organization_id={self.scenario.organization.id}"
        body = {"product_id": str(self.scenario.product.id), "batch_size": COST}
        response = self.client("POST", path, body, **params)
        assert response.status == 202, response.body
        return str(response.json()["id"])

    def cancel(self, generation_id: str) -> ClientResponse:
        return self.client("POST", f"/generations/{generation_id}/cancel")

    def status(self, generation_id: str) -> str:
        return str(self.client("GET", f"/generations/{generation_id}").json()["status"])

    def acquire_lease(self) -> queue.GenerationLease | None:
        return queue.GENERATIONS.lease_next(self.database, LEASE)

    def list_entries(self, generation_id: str) -> list[tuple[str, int]]:
        """Return kind and amount of each ledger entry of a generation, oldest first.

        Also assert that the entries of all generations add up to the credits used.
        """
        with self.database.transaction(write=False) as reading:
            entries = list(reading.scalars(select(CreditMovement).order_by(CreditMovement.id)))
            used = reading.scalar(select(Subscription.credits_used))
        assert sum(entry.amount for entry in entries) == used
        own_entries = [entry for entry in entries if entry.generation_id == UUID(generation_id)]
        return [(entry.kind, entry.amount) for entry in own_entries]


def add_other_work(billing_scenario: BillingScenario) -> BillingScenario:
    """Charge other work.

    A refund is limited to the credits used. Without other work, a second refund would go unnoticed.
    """
    scenario = billing_scenario.scenario
    with billing_scenario.database.transaction(write=True) as writing:
        writing.get_one(Subscription, scenario.subscription.id).credits_total = 1000
        billing.charge(scenario.organization.id, scenario.owner.id, OTHER_WORK, new_id())
    return billing_scenario


@pytest.fixture
def billing_scenario(
    client_for: Callable[..., Client], database: Database, scenario: PhotographedProduct, storage: LocalDisk
) -> BillingScenario:
    return add_other_work(BillingScenario(client_for(scenario.owner), database, scenario, storage))


@pytest.fixture
def committing_scenario(committing_server: CommittingServer, storage: LocalDisk) -> BillingScenario:
    """Return a billing scenario whose requests commit, each on its own connection."""
    return add_other_work(BillingScenario(*committing_server, storage))


def test_the_ledger_lists_charges_and_refunds(
    client_for: Callable[..., Client], scenario: PhotographedProduct
) -> None:
    client, usage = client_for(scenario.owner), f"/subscriptions/{scenario.subscription.id}/usage"
    body = {"product_id": str(scenario.product.id), "batch_size": 3}
    path = f"/generations/?organization_id={scenario.organization.id}"
    generation_id = client("POST", path, body).json()["id"]
    client("POST", f"/generations/{generation_id}/cancel")
    subscription = client("GET", f"/subscriptions/{scenario.subscription.id}").json()
    listed = client("GET", f"{usage}?sort=created_at").json()
    entries = [(row["kind"], row["amount"], row["generation_id"]) for row in listed["data"]]
    assert entries == [("charge", 3, generation_id), ("refund", -3, generation_id)]
    assert {row["period_start"] for row in listed["data"]} == {subscription["start_date"]}
    assert sum(row["amount"] for row in listed["data"]) == subscription["credits_used"] == 0


def test_s01_the_ledger_of_another_user_returns_404(
    client_for: Callable[..., Client], superuser: Client, scenario: PhotographedProduct
) -> None:
    usage = f"/subscriptions/{scenario.subscription.id}/usage"
    assert client_for(factories.make_user())("GET", usage).status == 404
    assert superuser("GET", usage).status == 200


def test_s20_fifty_concurrent_requests_with_ten_credits_create_ten_generations(
    committing_server: CommittingServer,
) -> None:
    client, database, scenario = committing_server
    with database.transaction(write=True) as writing:
        writing.get_one(Subscription, scenario.subscription.id).credits_total = CREDITS
    path = f"/generations/?organization_id={scenario.organization.id}"
    body = {"product_id": str(scenario.product.id)}
    responses = run_concurrently(*[lambda: client("POST", path, body)] * REQUESTS)
    outcomes = sorted((response.status, response.json().get("code")) for response in responses)
    assert outcomes == [(202, None)] * CREDITS + [(409, "out_of_credits")] * (REQUESTS - CREDITS)
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == CREDITS
        assert reading.scalar(select(func.sum(CreditMovement.amount))) == CREDITS
        assert reading.scalar(select(Subscription.credits_used)) == CREDITS


def test_s20_of_two_concurrent_requests_one_takes_the_last_place_of_the_queue(
    committing_server: CommittingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, database, scenario = committing_server
    limit_open_generations(monkeypatch, 3)
    with database.transaction(write=True):
        for _ in range(2):
            factories.make_generation(**scenario.ownership, model_id=scenario.model.id)
    path = f"/generations/?organization_id={scenario.organization.id}"
    body = {"product_id": str(scenario.product.id)}
    responses = run_concurrently(*[lambda: client("POST", path, body)] * 2)
    outcomes = sorted((response.status, response.json().get("code")) for response in responses)
    assert outcomes == [(202, None), (409, "queue_full")]
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == 3
        assert reading.scalar(select(Subscription.credits_used)) == 1


def test_s20_four_concurrent_batches_generate_each_shot_once(committing_server: CommittingServer) -> None:
    client, database, scenario = committing_server
    with database.transaction(write=True):
        for _ in range(2):
            factories.make_shot(scenario.look)
    path = f"/shootings/{scenario.shooting.id}/generate"
    responses = run_concurrently(*[lambda: client("POST", path, {"num_predictions": 1})] * 4)
    assert [response.status for response in responses] == [202] * 4
    assert sorted(response.json()["accepted_count"] for response in responses) == [0, 0, 0, 3]
    with database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == 3
        assert reading.scalar(select(Subscription.credits_used)) == 3


def test_s20_a_generation_that_is_canceled_twice_is_refunded_once(billing_scenario: BillingScenario) -> None:
    generation_id = billing_scenario.request_generation()
    assert billing_scenario.list_entries(generation_id) == CHARGED
    for _ in range(2):
        assert billing_scenario.cancel(generation_id).status == 200
        assert billing_scenario.list_entries(generation_id) == REFUNDED


def test_s20_a_generation_with_concurrent_cancellations_is_refunded_once(
    committing_scenario: BillingScenario,
) -> None:
    for count in [2, 20] * ROUNDS:
        generation_id = committing_scenario.request_generation()
        responses = run_concurrently(*[partial(committing_scenario.cancel, generation_id)] * count)
        assert [(response.status, response.json()["status"]) for response in responses] == [
            (200, "canceled")
        ] * count
        assert committing_scenario.list_entries(generation_id) == REFUNDED


def test_s20_cancellations_that_race_a_starting_worker_refund_only_before_the_start(
    committing_scenario: BillingScenario,
) -> None:
    for _ in range(ROUNDS):
        generation_id = committing_scenario.request_generation()
        cancel = partial(committing_scenario.cancel, generation_id)
        lease, *responses = run_concurrently(committing_scenario.acquire_lease, cancel, cancel)
        statuses = {(response.status, response.json()["status"]) for response in responses}
        assert statuses == {(200, "canceling" if lease else "canceled")}
        assert committing_scenario.list_entries(generation_id) == (CHARGED if lease else REFUNDED)
        if lease:
            # It stays charged after its worker has stopped, and after another cancellation.
            queue.GENERATIONS.release(committing_scenario.database, lease, counts_attempt=False)
            assert cancel().json()["status"] == "canceled"
            assert committing_scenario.list_entries(generation_id) == CHARGED


def finish_generation(committing_scenario: BillingScenario, lease: queue.GenerationLease) -> None:
    try_record(
        committing_scenario.database, queue.complete_generation, committing_scenario.storage, lease, []
    )


def fail_generation(committing_scenario: BillingScenario, lease: queue.GenerationLease) -> None:
    queue.GENERATIONS.fail(committing_scenario.database, lease, queue.INTERNAL_ERROR)


def release_lease(committing_scenario: BillingScenario, lease: queue.GenerationLease) -> None:
    queue.GENERATIONS.release(committing_scenario.database, lease, counts_attempt=False)


@pytest.mark.slow("it repeats a race")
def test_s20_cancellations_that_race_the_end_of_the_work_refund_at_most_once(
    committing_scenario: BillingScenario,
) -> None:
    """A cancellation before the end finds the generation running: it is canceled and stays charged."""
    for end, status_when_late, entries_when_late in (
        (finish_generation, "completed", CHARGED),
        (fail_generation, "failed", REFUNDED),
        (release_lease, "canceled", REFUNDED),
    ) * ROUNDS:
        generation_id, lease = committing_scenario.request_generation(), committing_scenario.acquire_lease()
        assert lease is not None
        cancel = partial(committing_scenario.cancel, generation_id)
        _, *responses = run_concurrently(partial(end, committing_scenario, lease), cancel, cancel)
        was_running = any(response.json()["status"] == "canceling" for response in responses)
        expected = CHARGED if was_running else entries_when_late
        assert committing_scenario.list_entries(generation_id) == expected
        assert committing_scenario.status(generation_id) == ("canceled" if was_running else status_when_late)
        cancel()
        assert committing_scenario.list_entries(generation_id) == expected


def test_s20_cancellations_that_race_the_deadline_refund_once(committing_scenario: BillingScenario) -> None:
    for _ in range(ROUNDS):
        generation_id = committing_scenario.request_generation()
        with committing_scenario.database.transaction(write=True) as writing:
            generation_update = update(Generation).where(Generation.id == UUID(generation_id))
            writing.execute(generation_update.values(deadline_at=utc_now() - timedelta(seconds=1)))
        cancel = partial(committing_scenario.cancel, generation_id)
        _, *responses = run_concurrently(
            partial(queue.expire_overdue, committing_scenario.database), cancel, cancel
        )
        outcomes = {
            status_and_code(response) if response.status != 200 else response.json()["status"]
            for response in responses
        }
        assert outcomes in ({"canceled"}, {(409, "invalid_transition")})
        assert committing_scenario.list_entries(generation_id) == REFUNDED


def test_s20_a_replay_after_a_cancellation_is_neither_charged_nor_refunded_again(
    billing_scenario: BillingScenario,
) -> None:
    same_key = {"headers": {"idempotency-key": "one-request"}}
    generation_id = billing_scenario.request_generation(**same_key)
    assert billing_scenario.request_generation(**same_key) == generation_id
    assert billing_scenario.list_entries(generation_id) == CHARGED
    billing_scenario.cancel(generation_id)
    assert billing_scenario.request_generation(**same_key) == generation_id
    billing_scenario.cancel(generation_id)
    assert billing_scenario.list_entries(generation_id) == REFUNDED
    with billing_scenario.database.transaction(write=False) as reading:
        assert reading.scalar(select(func.count(Generation.id))) == 1
        assert reading.scalar(select(Subscription.credits_used)) == OTHER_WORK
