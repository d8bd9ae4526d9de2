"""Test charges, refunds and subscriptions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete

from db.base import new_id, utc_now
from db.errors import OutOfCredits, SubscriptionExists
from db.models import Subscription, User
from db.session import Database, current_session
from studio.billing.billing import (
    PLANS,
    charge,
    create_subscription,
    is_subscription_active,
    refund,
    renew_subscription,
    replace_subscription,
)
from tests.support.concurrency import run_concurrently
from tests.support.factories import make_membership, make_organization, make_subscription, make_user


@pytest.fixture(autouse=True)
def _transaction(request: pytest.FixtureRequest) -> Iterator[None]:
    if "committing_database" in request.fixturenames:
        yield
        return
    database: Database = request.getfixturevalue("database")
    with database.transaction(write=True):
        yield


def _credits_used(subscription: Subscription) -> int:
    current_session().refresh(subscription)
    return subscription.credits_used


def test_generations_of_members_are_charged_to_the_owner_of_the_organization() -> None:
    owner, member = make_user(), make_user()
    organization = make_organization(owner)
    make_membership(organization, member)
    of_owner, of_member = make_subscription(owner), make_subscription(member)
    assert charge(organization.id, member.id, 4, new_id()).subscription_id == of_owner.id
    assert (_credits_used(of_owner), _credits_used(of_member)) == (4, 0)


def test_personal_generations_are_charged_to_their_owner() -> None:
    user = make_user()
    subscription = make_subscription(user)
    assert charge(None, user.id, 3, new_id()).subscription_id == subscription.id
    assert _credits_used(subscription) == 3


def test_the_last_credit_can_be_used_but_not_one_more() -> None:
    user = make_user()
    subscription = make_subscription(user, credits_total=10, credits_used=6)
    charge(None, user.id, 4, new_id())
    with pytest.raises(OutOfCredits):
        charge(None, user.id, 1, new_id())
    assert _credits_used(subscription) == 10


@pytest.mark.parametrize(
    "values", [{"is_active": False}, {"grace_period_end": utc_now() - timedelta(days=1)}]
)
def test_an_inactive_or_expired_subscription_cannot_be_charged(values: dict[str, Any]) -> None:
    user = make_user()
    subscription = make_subscription(user, **values)
    assert not is_subscription_active(subscription)
    with pytest.raises(OutOfCredits):
        charge(None, user.id, 1, new_id())


def test_a_subscription_in_its_grace_period_can_be_charged() -> None:
    user, now = make_user(), utc_now()
    make_subscription(user, end_date=now - timedelta(days=1), grace_period_end=now + timedelta(days=6))
    charge(None, user.id, 1, new_id())


def test_a_charge_without_a_subscription_is_rejected() -> None:
    with pytest.raises(OutOfCredits):
        charge(None, make_user().id, 1, new_id())


def test_s20_a_refund_never_exceeds_the_used_credits() -> None:
    subscription = make_subscription(credits_used=5)
    refund(subscription.id, 2, new_id())
    assert _credits_used(subscription) == 3
    refund(subscription.id, 10, new_id())
    assert _credits_used(subscription) == 0


def test_a_new_subscription_has_the_credits_and_the_price_of_its_tier_for_30_days() -> None:
    subscription = create_subscription(make_user().id, "SELF_SERVICE", "SCALE", "pay_1")
    assert (subscription.credits_total, subscription.base_price_minor) == (25_000, 799_00)
    assert subscription.end_date - subscription.start_date == timedelta(days=30)
    assert subscription.grace_period_end - subscription.end_date == timedelta(days=7)


def test_a_second_active_subscription_is_rejected_and_an_expired_one_is_replaced() -> None:
    user = make_user()
    expired = make_subscription(user, grace_period_end=utc_now() - timedelta(seconds=1))
    create_subscription(user.id, "MANAGED", "START", None)
    current_session().refresh(expired)
    assert expired.is_active is False
    with pytest.raises(SubscriptionExists):
        create_subscription(user.id, "MANAGED", "START", None)


def test_a_change_of_tier_keeps_the_used_credits() -> None:
    subscription = make_subscription(tier="GROW", credits_total=5000, credits_used=600)
    replace_subscription(subscription, {"service_type": "MANAGED", "tier": "START"})
    assert (subscription.credits_total, subscription.credits_used) == (PLANS["START"].credits, 600)
    assert subscription.credits_remaining == 0


def test_a_renewal_continues_the_period_and_resets_the_used_credits() -> None:
    subscription = make_subscription(credits_used=9)
    end = subscription.end_date
    renew_subscription(subscription)
    assert (subscription.start_date, subscription.credits_used) == (end, 0)


def test_a_renewal_after_the_end_of_the_period_starts_now() -> None:
    subscription = make_subscription(end_date=utc_now() - timedelta(days=90))
    renew_subscription(subscription)
    assert utc_now() - subscription.start_date < timedelta(minutes=1)


def test_s20_parallel_charges_do_not_overdraw(committing_database: Database) -> None:
    with committing_database.transaction(write=True):
        user = make_user(email="parallel@example.com")
        subscription = make_subscription(user, credits_total=5)

    def spend() -> bool:
        try:
            with committing_database.transaction(write=True):
                charge(None, user.id, 2, new_id())
        except OutOfCredits:
            return False
        return True

    assert sorted(run_concurrently(*[spend] * 4)) == [False, False, True, True]
    with committing_database.transaction(write=True) as opened:
        stored = opened.get(Subscription, subscription.id)
        assert stored is not None
        assert stored.credits_used == 4
        opened.execute(delete(User).where(User.id == user.id))
