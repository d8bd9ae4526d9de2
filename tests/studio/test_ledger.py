"""The ledger of credits: whatever happens, its entries add up to what was used, period by period."""

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
from db.errors import OutOfCredits
from db.models import CreditMovement, Generation, Subscription
from db.session import Database, session
from db.tenancy import use_caller
from studio import billing
from studio.generation import request_generation
from studio.jobs import queue
from studio.lifecycle import advance, request_cancel
from studio.media.storage import LocalDisk
from tests import factories
from tests.production import LEASE, Production, make_production

STEPS = 80


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """A clock that stands until it is moved."""
    with time_machine.travel(utc_now(), tick=False) as coordinates:
        yield coordinates


def sums(subscription: Subscription) -> dict[datetime, int]:
    """What the entries of each period add up to."""
    query = select(CreditMovement.period_start, func.sum(CreditMovement.amount))
    query = query.where(CreditMovement.subscription_id == subscription.id)
    return {start: int(total) for start, total in session().execute(query.group_by("period_start"))}


def kinds(subscription: Subscription) -> list[tuple[str, int]]:
    """Kind and amount of every entry, the oldest first."""
    session().flush()
    mine = select(CreditMovement).where(CreditMovement.subscription_id == subscription.id)
    return [(row.kind, row.amount) for row in session().scalars(mine.order_by(CreditMovement.id))]


class Walk:
    """Somebody who does at random what moves credits, or stops what would."""

    def __init__(self, production: Production, seed: int, clock: time_machine.Coordinates) -> None:
        self.production, self.dice, self.clock = production, random.Random(seed), clock
        self.subscription = session().get_one(Subscription, production.subscription.id)

    def order(self) -> None:
        production = self.production
        caller = factories.caller_of(production.owner, {production.organization: "owner"})
        asked = {"product_id": production.product.id, "batch_size": self.dice.randint(1, 8)}
        with use_caller(caller, None):
            try:
                request_generation(asked, production.organization.id, None, lambda *_: None)
            except OutOfCredits:
                assert self.subscription.credits_remaining < asked["batch_size"]

    def cancel(self) -> None:
        for generation in self.open("pending", "running")[:1]:
            request_cancel(generation)

    def work(self) -> None:
        for generation in self.open("pending")[:1]:
            advance(generation, "running")
        for generation in self.open("canceling"):
            advance(generation, "canceled")

    def end(self) -> None:
        for generation in self.open("running")[:1]:
            advance(generation, self.dice.choice(["completed", "failed", "expired", "pending"]))

    def renew(self) -> None:
        billing.renew(self.subscription)

    def change_tier(self) -> None:
        tier = self.dice.choice(list(billing.PLANS))
        billing.change_plan(self.subscription, {"service_type": "MANAGED", "tier": tier})

    def wait(self) -> None:
        self.clock.shift(timedelta(days=self.dice.randint(1, 12)))

    def open(self, *states: str) -> list[Generation]:
        mine = Generation.subscription_id == self.subscription.id
        found = list(session().scalars(select(Generation).where(mine, Generation.status.in_(states))))
        self.dice.shuffle(found)
        return found


@pytest.mark.parametrize("seed", [1, 2])
def test_after_any_walk_the_running_period_adds_up_to_what_was_used(
    database: Database, production: Production, clock: time_machine.Coordinates, seed: int
) -> None:
    with database.transaction(write=True):
        walk = Walk(production, seed, clock)
        steps = [walk.order] * 5 + [walk.cancel, walk.work, walk.work, walk.end, walk.end]
        steps += [walk.renew, walk.change_tier, walk.wait]
        for _ in range(STEPS):
            before, period = sums(walk.subscription), walk.subscription.start_date
            walk.dice.choice(steps)()
            session().flush()
            session().refresh(walk.subscription)
            after = sums(walk.subscription)
            assert after.get(walk.subscription.start_date, 0) == walk.subscription.credits_used
            assert min(after.values(), default=0) >= 0
            # A period that is over only ever shrinks, by what is refunded of it.
            assert all(after[start] <= total for start, total in before.items() if start != period)
        paid = select(func.sum(Generation.cost_credits)).where(
            Generation.subscription_id == walk.subscription.id
        )
        assert session().scalar(paid) == sum(sums(walk.subscription).values()) > 0
        assert len(sums(walk.subscription)) > 1


def test_what_is_refunded_after_a_renewal_counts_in_the_period_that_paid(
    database: Database, production: Production, clock: time_machine.Coordinates
) -> None:
    with database.transaction(write=True):
        subscription = session().get_one(Subscription, production.subscription.id)
        old, generation_id = subscription.start_date, new_id()
        billing.charge(production.organization.id, production.owner.id, 6, generation_id)
        clock.shift(timedelta(days=31))
        billing.renew(subscription)
        billing.charge(production.organization.id, production.owner.id, 2, new_id())
        billing.refund(subscription.id, 6, generation_id)
        session().refresh(subscription)
        assert (subscription.credits_used, subscription.credits_remaining) == (2, 18)
        assert sums(subscription) == {old: 0, subscription.start_date: 2}
        assert kinds(subscription) == [("charge", 6), ("renewal", 0), ("charge", 2), ("refund", -6)]


def test_credits_are_spent_until_the_grace_period_ends_and_again_from_the_renewal_on(
    database: Database, clock: time_machine.Coordinates
) -> None:
    with database.transaction(write=True):
        user = factories.make_user()
        subscription = billing.subscribe(user.id, "SELF_SERVICE", "START", None)
        spend = partial(billing.charge, None, user.id, 100, new_id())
        spend()
        clock.shift(timedelta(days=36, hours=23))
        spend()
        session().refresh(subscription)
        assert subscription.credits_remaining == 300
        clock.shift(timedelta(hours=1))
        with pytest.raises(OutOfCredits):
            spend()
        billing.renew(subscription)
        assert (subscription.start_date, subscription.credits_remaining) == (utc_now(), 500)
        assert subscription.end_date == utc_now() + timedelta(days=30)
        spend()
        expected = [("opening", 0), ("charge", 100), ("charge", 100), ("renewal", 0), ("charge", 100)]
        assert kinds(subscription) == expected


def test_a_renewal_ahead_of_time_follows_the_running_period_and_carries_nothing_over(
    database: Database, clock: time_machine.Coordinates
) -> None:
    with database.transaction(write=True):
        user = factories.make_user()
        subscription = billing.subscribe(user.id, "SELF_SERVICE", "START", None)
        end = subscription.end_date
        billing.charge(None, user.id, 100, new_id())
        clock.shift(timedelta(days=20))
        billing.renew(subscription)
        assert (subscription.start_date, subscription.end_date) == (end, end + timedelta(days=30))
        assert (subscription.credits_total, subscription.credits_used) == (500, 0)


def test_an_upgrade_in_the_middle_of_a_period_counts_at_once_and_costs_the_rest_of_it(
    database: Database, clock: time_machine.Coordinates
) -> None:
    with database.transaction(write=True):
        user = factories.make_user()
        subscription = billing.subscribe(user.id, "SELF_SERVICE", "START", None)
        end = subscription.end_date
        billing.charge(None, user.id, 450, new_id())
        session().refresh(subscription)
        clock.shift(timedelta(days=15))
        billing.change_plan(subscription, {"service_type": "SELF_SERVICE", "tier": "GROW"})
        assert (subscription.credits_used, subscription.credits_remaining) == (450, 4550)
        assert subscription.end_date == end
        assert (subscription.base_price_minor, subscription.actual_price_minor) == (199_00, 124_00)
        assert billing.charge(None, user.id, 1, new_id()).priority == billing.PLANS["GROW"].priority
        clock.shift(timedelta(days=20))
        billing.change_plan(subscription, {"service_type": "SELF_SERVICE", "tier": "START"})
        assert subscription.actual_price_minor == 124_00
        billing.renew(subscription)
        assert (subscription.actual_price_minor, subscription.credits_remaining) == (49_00, 500)


def test_who_pays_more_is_served_first(
    database: Database, storage: LocalDisk, production: Production
) -> None:
    other = make_production(storage, database)
    ordered = [order_as(database, production, "START"), order_as(database, other, "SCALE")]
    ordered += [order_as(database, production, "ENTERPRISE"), order_as(database, other, "GROW")]
    claimed = [claim.generation_id for _ in ordered if (claim := queue.claim_next(database, "one", LEASE))]
    assert claimed == [ordered[number] for number in (2, 1, 3, 0)]


def order_as(database: Database, production: Production, tier: str) -> Any:
    """The id of a generation that was ordered on a plan of this tier."""
    caller = factories.caller_of(production.owner, {production.organization: "owner"})
    with database.transaction(write=True), use_caller(caller, None):
        session().get_one(Subscription, production.subscription.id).tier = tier
        session().flush()
        asked = {"product_id": production.product.id}
        return request_generation(asked, production.organization.id, None, lambda *_: None).id
