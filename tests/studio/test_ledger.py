"""Test the credit ledger: its entries add up to the used credits of each period."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
import time_machine
from sqlalchemy import func, select

from db.base import new_id, utc_now
from db.caller import caller_context
from db.errors import OutOfCredits
from db.models import CreditMovement, Generation, Subscription
from db.session import Database, current_session
from studio.billing import billing
from studio.generations.lifecycle import cancel_generation, transition
from studio.generations.worker import queue
from studio.infrastructure.storage import LocalDisk
from tests.support import factories
from tests.support.queues import LEASE
from tests.support.scenarios import PhotographedProduct, make_photographed_product, request_generation

STEPS = 80


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Yield a clock that stands still until a test moves it."""
    with time_machine.travel(utc_now(), tick=False) as coordinates:
        yield coordinates


def sum_by_period(subscription: Subscription) -> dict[datetime, int]:
    """Return the sum of the entries of each period."""
    query = select(CreditMovement.period_start, func.sum(CreditMovement.amount))
    query = query.where(CreditMovement.subscription_id == subscription.id)
    return {start: int(total) for start, total in current_session().execute(query.group_by("period_start"))}


def list_entries(subscription: Subscription) -> list[tuple[str, int]]:
    """Return the kind and amount of each entry, oldest first."""
    current_session().flush()
    query = select(CreditMovement).where(CreditMovement.subscription_id == subscription.id)
    return [(row.kind, row.amount) for row in current_session().scalars(query.order_by(CreditMovement.id))]


class RandomWalk:
    """Random actions that charge, refund or reset credits, or prevent that."""

    def __init__(self, scenario: PhotographedProduct, seed: int, clock: time_machine.Coordinates) -> None:
        self.scenario, self.random, self.clock = scenario, random.Random(seed), clock
        self.subscription = current_session().get_one(Subscription, scenario.subscription.id)

    def request(self) -> None:
        scenario = self.scenario
        caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
        params = {"product_id": scenario.product.id, "batch_size": self.random.randint(1, 8)}
        with caller_context(caller, None):
            try:
                request_generation(params, scenario.organization.id, None)
            except OutOfCredits:
                assert self.subscription.credits_remaining < params["batch_size"]

    def cancel(self) -> None:
        for generation in self.open("pending", "running")[:1]:
            cancel_generation(generation)

    def work(self) -> None:
        for generation in self.open("pending")[:1]:
            transition(generation, "running")
        for generation in self.open("canceling"):
            transition(generation, "canceled")

    def end(self) -> None:
        for generation in self.open("running")[:1]:
            transition(generation, self.random.choice(["completed", "failed", "expired", "pending"]))

    def renew(self) -> None:
        billing.renew_subscription(self.subscription)

    def change_tier(self) -> None:
        tier = self.random.choice(list(billing.PLANS))
        billing.replace_subscription(self.subscription, {"service_type": "MANAGED", "tier": tier})

    def wait(self) -> None:
        self.clock.shift(timedelta(days=self.random.randint(1, 12)))

    def open(self, *states: str) -> list[Generation]:
        owned = Generation.subscription_id == self.subscription.id
        found = list(
            current_session().scalars(select(Generation).where(owned, Generation.status.in_(states)))
        )
        self.random.shuffle(found)
        return found


@pytest.mark.parametrize("seed", [1, 2])
def test_after_random_actions_the_current_period_adds_up_to_the_used_credits(
    database: Database, scenario: PhotographedProduct, clock: time_machine.Coordinates, seed: int
) -> None:
    with database.transaction(write=True):
        walk = RandomWalk(scenario, seed, clock)
        steps = [walk.request] * 5 + [walk.cancel, walk.work, walk.work, walk.end, walk.end]
        steps += [walk.renew, walk.change_tier, walk.wait]
        for _ in range(STEPS):
            before, period = sum_by_period(walk.subscription), walk.subscription.start_date
            walk.random.choice(steps)()
            current_session().flush()
            current_session().refresh(walk.subscription)
            after = sum_by_period(walk.subscription)
            assert after.get(walk.subscription.start_date, 0) == walk.subscription.credits_used
            assert min(after.values(), default=0) >= 0
            # The sum of an ended period only decreases, by refunds.
            assert all(after[start] <= total for start, total in before.items() if start != period)
        total_cost = select(func.sum(Generation.cost_credits)).where(
            Generation.subscription_id == walk.subscription.id
        )
        assert current_session().scalar(total_cost) == sum(sum_by_period(walk.subscription).values()) > 0
        assert len(sum_by_period(walk.subscription)) > 1


def test_a_refund_after_a_renewal_counts_in_the_period_of_the_charge(
    database: Database, scenario: PhotographedProduct, clock: time_machine.Coordinates
) -> None:
    with database.transaction(write=True):
        subscription = current_session().get_one(Subscription, scenario.subscription.id)
        old_period, generation_id = subscription.start_date, new_id()
        billing.charge(scenario.organization.id, scenario.owner.id, 6, generation_id)
        clock.shift(timedelta(days=31))
        billing.renew_subscription(subscription)
        billing.charge(scenario.organization.id, scenario.owner.id, 2, new_id())
        billing.refund(subscription.id, 6, generation_id)
        current_session().refresh(subscription)
        assert (subscription.credits_used, subscription.credits_remaining) == (2, 18)
        assert sum_by_period(subscription) == {old_period: 0, subscription.start_date: 2}
        assert list_entries(subscription) == [("charge", 6), ("renewal", 0), ("charge", 2), ("refund", -6)]


def test_credits_can_be_used_until_the_grace_period_ends_and_again_after_the_renewal(
    database: Database, clock: time_machine.Coordinates
) -> None:
    with database.transaction(write=True):
        user = factories.make_user()
        subscription = billing.create_subscription(user.id, "SELF_SERVICE", "START", None)
        spend = partial(billing.charge, None, user.id, 100, new_id())
        spend()
        clock.shift(timedelta(days=36, hours=23))
        spend()
        current_session().refresh(subscription)
        assert subscription.credits_remaining == 300
        clock.shift(timedelta(hours=1))
        with pytest.raises(OutOfCredits):
            spend()
        billing.renew_subscription(subscription)
        assert (subscription.start_date, subscription.credits_remaining) == (utc_now(), 500)
        assert subscription.end_date == utc_now() + timedelta(days=30)
        spend()
        expected = [("opening", 0), ("charge", 100), ("charge", 100), ("renewal", 0), ("charge", 100)]
        assert list_entries(subscription) == expected


def test_an_early_renewal_starts_after_the_current_period_and_carries_no_credits_over(
    database: Database, clock: time_machine.Coordinates
) -> None:
    with database.transaction(write=True):
        user = factories.make_user()
        subscription = billing.create_subscription(user.id, "SELF_SERVICE", "START", None)
        end = subscription.end_date
        billing.charge(None, user.id, 100, new_id())
        clock.shift(timedelta(days=20))
        billing.renew_subscription(subscription)
        assert (subscription.start_date, subscription.end_date) == (end, end + timedelta(days=30))
        assert (subscription.credits_total, subscription.credits_used) == (500, 0)


def test_an_upgrade_within_a_period_applies_at_once_and_is_prorated(
    database: Database, clock: time_machine.Coordinates
) -> None:
    with database.transaction(write=True):
        user = factories.make_user()
        subscription = billing.create_subscription(user.id, "SELF_SERVICE", "START", None)
        end = subscription.end_date
        billing.charge(None, user.id, 450, new_id())
        current_session().refresh(subscription)
        clock.shift(timedelta(days=15))
        billing.replace_subscription(subscription, {"service_type": "SELF_SERVICE", "tier": "GROW"})
        assert (subscription.credits_used, subscription.credits_remaining) == (450, 4550)
        assert subscription.end_date == end
        assert (subscription.base_price_minor, subscription.actual_price_minor) == (199_00, 124_00)
        assert billing.charge(None, user.id, 1, new_id()).plan.priority == billing.PLANS["GROW"].priority
        clock.shift(timedelta(days=20))
        billing.replace_subscription(subscription, {"service_type": "SELF_SERVICE", "tier": "START"})
        assert subscription.actual_price_minor == 124_00
        billing.renew_subscription(subscription)
        assert (subscription.actual_price_minor, subscription.credits_remaining) == (49_00, 500)


def test_generations_of_a_higher_tier_run_first(
    database: Database, storage: LocalDisk, scenario: PhotographedProduct
) -> None:
    other = make_photographed_product(storage, database)
    requested = [request_on_tier(database, scenario, "START"), request_on_tier(database, other, "SCALE")]
    requested += [request_on_tier(database, scenario, "ENTERPRISE"), request_on_tier(database, other, "GROW")]
    leased = [lease.row_id for _ in requested if (lease := queue.GENERATIONS.lease_next(database, LEASE))]
    assert leased == [requested[number] for number in (2, 1, 3, 0)]


def request_on_tier(database: Database, scenario: PhotographedProduct, tier: str) -> Any:
    """Return the id of a generation that was requested with a plan of this tier."""
    caller = factories.build_caller(scenario.owner, {scenario.organization: "owner"})
    with database.transaction(write=True), caller_context(caller, None):
        current_session().get_one(Subscription, scenario.subscription.id).tier = tier
        current_session().flush()
        params = {"product_id": scenario.product.id}
        return request_generation(params, scenario.organization.id, None).id
