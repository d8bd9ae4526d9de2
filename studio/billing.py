"""Plans and credits: what a tier gives, who pays for a generation, and the one place where credits move, each
time with its entry in the ledger.

Knows nothing of payment providers: a superuser records what they report.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, select, update

from db.base import utc_now
from db.errors import NotFound, OutOfCredits, SubscriptionExists
from db.models.organizations import Membership, Role
from db.models.subscriptions import CreditMovement, MovementKind, PaymentStatus, Subscription
from db.models.users import User
from db.session import current_session

PERIOD = timedelta(days=30)
GRACE = timedelta(days=7)
CURRENCY = "EUR"


@dataclass(frozen=True)
class Plan:
    """What a tier gives for one period; the price is in the minor unit (cents).

    Orders of a higher priority are worked off first.
    """

    credits: int
    price_minor: int
    priority: int


PLANS = {
    "START": Plan(500, 49_00, 0),
    "GROW": Plan(5_000, 199_00, 10),
    "SCALE": Plan(25_000, 799_00, 20),
    "ENTERPRISE": Plan(200_000, 2_999_00, 30),
}


class Charge(NamedTuple):
    """Which subscription paid, for `refund`, and how urgent its tier makes the work."""

    subscription_id: UUID
    priority: int


def charge(organization_id: UUID | None, user_id: UUID, amount: int, generation_id: UUID) -> Charge:
    """Take an amount of credits for work in a scope, and note it for the generation.

    The subscription of the organization's owner pays, for personal work (None) that of `user_id`, who owns
    the row. OutOfCredits when there is none that runs, or too little is left: then nothing is taken.
    """
    # One statement that compares and takes, so that parallel charges cannot overdraw.
    taking = (
        update(Subscription)
        .where(
            Subscription.user_id == _payer_id(organization_id, user_id),
            active_condition(utc_now()),
            Subscription.credits_used + amount <= Subscription.credits_total,
        )
        .values(credits_used=Subscription.credits_used + amount)
        .returning(Subscription.id, Subscription.tier, Subscription.credits_total, Subscription.start_date)
    )
    taken = current_session().execute(taking).one_or_none()
    if taken is None:
        raise OutOfCredits()
    _record_movement(
        taken.id, taken.credits_total, MovementKind.CHARGE, amount, taken.start_date, generation_id
    )
    return Charge(taken.id, PLANS[taken.tier].priority)


def refund(subscription_id: UUID, amount: int, generation_id: UUID) -> None:
    """Give an amount of credits back to the period of the subscription that paid for the generation.

    A period that has been renewed since is over: what comes back to it cannot be spent any more.
    """
    locked = select(Subscription).where(Subscription.id == subscription_id).with_for_update()
    subscription = current_session().scalar(locked.execution_options(populate_existing=True))
    if subscription is None:
        return
    paid_in = current_session().scalar(
        select(CreditMovement.period_start).where(
            CreditMovement.generation_id == generation_id, CreditMovement.kind == MovementKind.CHARGE
        )
    )
    period = paid_in or subscription.start_date
    if period == subscription.start_date:
        # What was paid before there was a ledger may be more than the period has used.
        amount = min(amount, subscription.credits_used)
        subscription.credits_used -= amount
    total = subscription.credits_total
    _record_movement(subscription_id, total, MovementKind.REFUND, -amount, period, generation_id)
    current_session().flush()


def active_condition(now: datetime) -> ColumnElement[bool]:
    """The condition under which a subscription pays: not stopped, and its grace period not over."""
    return Subscription.is_active.is_(True) & (Subscription.grace_period_end > now)


def is_subscription_active(subscription: Subscription) -> bool:
    """Whether a loaded subscription pays now."""
    return subscription.is_active and subscription.grace_period_end > utc_now()


def create_subscription(user_id: UUID, service_type: str, tier: str, payment_id: str | None) -> Subscription:
    """Give an account a plan from now on.

    NotFound when there is no such account; SubscriptionExists while it has one that runs.
    """
    # The account is locked, so that two plans cannot be given to it at once.
    if current_session().scalar(select(User.id).where(User.id == user_id).with_for_update()) is None:
        raise NotFound()
    now = utc_now()
    mine = Subscription.user_id == user_id
    if current_session().scalar(select(Subscription.id).where(mine, active_condition(now))) is not None:
        raise SubscriptionExists()
    # What ran out makes way.
    _deactivate_others(user_id)
    subscription = Subscription(
        user_id=user_id, service_type=service_type, payment_id=payment_id, credits_used=0, currency=CURRENCY
    )
    _set_tier(subscription, tier)
    _begin_period(subscription, now)
    current_session().add(subscription)
    current_session().flush()
    _record_plan_movement(subscription, MovementKind.OPENING)
    return subscription


def replace_subscription(subscription: Subscription, body: dict[str, Any]) -> None:
    """Set plan and payment state to what the body says; used credits stay used, the period ends as it would.

    Another tier changes the period's price by the difference of the list prices for the time that is left. A
    payment id that is absent is removed; payment state and activity that are absent stay. One that is made
    active takes the place of the account's other active one.
    """
    if body.get("is_active"):
        _deactivate_others(subscription.user_id, subscription.id)
    subscription.service_type = body["service_type"]
    if body["tier"] != subscription.tier:
        price, list_price = subscription.actual_price_minor, subscription.base_price_minor
        _set_tier(subscription, body["tier"])
        difference = subscription.base_price_minor - list_price
        subscription.actual_price_minor = max(0, price + round(difference * _remaining_share(subscription)))
        _record_plan_movement(subscription, MovementKind.PLAN_CHANGE)
    subscription.payment_id = body.get("payment_id")
    subscription.payment_status = body.get("payment_status", subscription.payment_status)
    subscription.is_active = body.get("is_active", subscription.is_active)
    current_session().flush()


def renew_subscription(subscription: Subscription) -> None:
    """Begin the next period with fresh credits, at the end of the running one or now if that is past.

    A stopped subscription stays stopped.
    """
    _begin_period(subscription, max(subscription.end_date, utc_now()))
    subscription.actual_price_minor = subscription.base_price_minor
    _record_plan_movement(subscription, MovementKind.RENEWAL)
    current_session().flush()


def _record_movement(
    subscription_id: UUID,
    credits_total: int,
    kind: MovementKind,
    amount: int,
    period_start: datetime,
    generation_id: UUID | None = None,
) -> None:
    """Write the one entry of the ledger that belongs to a change of credits."""
    current_session().add(
        CreditMovement(
            subscription_id=subscription_id,
            generation_id=generation_id,
            kind=kind,
            amount=amount,
            credits_total=credits_total,
            period_start=period_start,
        )
    )


def _record_plan_movement(subscription: Subscription, kind: MovementKind) -> None:
    _record_movement(subscription.id, subscription.credits_total, kind, 0, subscription.start_date)


def _remaining_share(subscription: Subscription) -> float:
    """The share of the period that is still to come, 0..1."""
    share = (subscription.end_date - utc_now()) / (subscription.end_date - subscription.start_date)
    return min(1.0, max(0.0, share))


def _payer_id(organization_id: UUID | None, user_id: UUID) -> Any:
    if organization_id is None:
        return user_id
    return (
        select(Membership.user_id)
        .where(Membership.organization_id == organization_id, Membership.role == Role.OWNER)
        .scalar_subquery()
    )


def _deactivate_others(user_id: UUID, subscription_id: UUID | None = None) -> None:
    """Stop the account's active subscriptions but this one: the index allows one."""
    stopping = update(Subscription).where(Subscription.user_id == user_id, Subscription.is_active.is_(True))
    if subscription_id is not None:
        stopping = stopping.where(Subscription.id != subscription_id)
    current_session().execute(stopping.values(is_active=False))


def _set_tier(subscription: Subscription, tier: str) -> None:
    plan = PLANS[tier]
    subscription.tier = tier
    subscription.credits_total = plan.credits
    subscription.base_price_minor = subscription.actual_price_minor = plan.price_minor


def _begin_period(subscription: Subscription, start: datetime) -> None:
    subscription.start_date = start
    subscription.end_date = start + PERIOD
    subscription.grace_period_end = subscription.end_date + GRACE
    subscription.credits_used = 0
    subscription.payment_status = PaymentStatus.PENDING
