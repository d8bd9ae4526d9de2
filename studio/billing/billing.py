"""Plans and credits: charge and refund generations, and create, replace and renew subscriptions.

Only this module changes credits. Every change writes an entry of the ledger (`CreditMovement`). Knows no
payment providers: a superuser records what they report.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, select, update

from db.base import utc_now
from db.errors import NotFound, OutOfCredits, SubscriptionExists
from db.models.organizations import Membership, Role
from db.models.subscriptions import CreditMovement, MovementKind, PaymentStatus, Subscription
from db.models.users import User
from db.session import as_system, current_session
from studio.webhooks.events import emit_credits_event

PERIOD = timedelta(days=30)
GRACE = timedelta(days=7)
LOW_CREDITS = 10
"""The credits are low when less than one part of this many is left."""
CURRENCY = "EUR"


@dataclass(frozen=True)
class Plan:
    """The credits, the price and the storage of a tier. The price is in the minor unit (cents).

    Generations with a higher priority run first. `max_open_generations` is the limit of each tenant that the
    subscription pays for.
    """

    credits: int
    price_minor: int
    priority: int
    max_open_generations: int
    storage_bytes: int


PLANS = {
    "START": Plan(500, 49_00, 0, 200, 20_000_000_000),
    "GROW": Plan(5_000, 199_00, 10, 1_000, 100_000_000_000),
    "SCALE": Plan(25_000, 799_00, 20, 5_000, 500_000_000_000),
    "ENTERPRISE": Plan(200_000, 2_999_00, 30, 20_000, 2_000_000_000_000),
}


class Charge(NamedTuple):
    """The subscription that paid, which `refund` needs, and its tier."""

    subscription_id: UUID
    tier: str

    @property
    def plan(self) -> Plan:
        """The plan of the tier."""
        return PLANS[self.tier]


def charge(organization_id: UUID | None, user_id: UUID, amount: int, generation_id: UUID) -> Charge:
    """Charge credits for a generation.

    Args:
        organization_id: The organization of the generation, whose owner's subscription pays; None if it is
            personal.
        user_id: The owner of a personal generation, who pays for it.
        amount: The number of credits.
        generation_id: The generation, for the ledger.

    Raises:
        OutOfCredits: There is no active subscription, or it has too few credits. Nothing is charged.
    """
    now = utc_now()
    # One statement compares and updates, so that parallel charges cannot overdraw the subscription, and only
    # one of them finds that its credits are low.
    statement = (
        update(Subscription)
        .where(
            Subscription.user_id == _payer_id(organization_id, user_id),
            active_condition(now),
            Subscription.credits_used + amount <= Subscription.credits_total,
        )
        .values(
            credits_used=Subscription.credits_used + amount,
            credits_low_at=case((_becomes_low(amount), now), else_=Subscription.credits_low_at),
        )
        .returning(
            Subscription.id,
            Subscription.tier,
            Subscription.credits_total,
            Subscription.start_date,
            Subscription.credits_low_at,
        )
    )
    payer = current_session().execute(statement).one_or_none()
    if payer is None:
        raise OutOfCredits()
    _record_movement(
        payer.id, payer.credits_total, MovementKind.CHARGE, amount, payer.start_date, generation_id
    )
    if payer.credits_low_at == now:
        _emit_low_credits(payer.id)
    return Charge(payer.id, payer.tier)


def refund(subscription_id: UUID, amount: int, generation_id: UUID) -> None:
    """Return credits to the subscription and period that paid for a generation.

    Credits of a period that has ended cannot be used any more; the ledger has the entry all the same.
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
        # Charges from before the ledger existed can be higher than what the period has used.
        amount = min(amount, subscription.credits_used)
        subscription.credits_used -= amount
    total = subscription.credits_total
    _record_movement(subscription_id, total, MovementKind.REFUND, -amount, period, generation_id)
    current_session().flush()


def active_condition(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a subscription can pay: it is active and its grace period has not ended."""
    return Subscription.is_active.is_(True) & (Subscription.grace_period_end > now)


def can_go_on(subscription_id: UUID | None) -> bool:
    """Return whether a generation that was paid for may begin now: its account still has an active plan.

    Args:
        subscription_id: The subscription that paid. The account may have another one since.
    """
    if subscription_id is None:
        return True
    paid_by = select(Subscription.user_id).where(Subscription.id == subscription_id).scalar_subquery()
    active = select(Subscription.id).where(Subscription.user_id == paid_by, active_condition(utc_now()))
    return current_session().scalar(active.limit(1)) is not None


def _is_low(subscription: Subscription) -> bool:
    """Return whether less than a tenth of the credits of a loaded subscription is left."""
    return subscription.credits_remaining * LOW_CREDITS < subscription.credits_total


def is_subscription_active(subscription: Subscription) -> bool:
    """Return whether a loaded subscription can pay now."""
    return subscription.is_active and subscription.grace_period_end > utc_now()


def create_subscription(user_id: UUID, service_type: str, tier: str, payment_id: str | None) -> Subscription:
    """Create a subscription that starts now.

    Raises:
        NotFound: The account does not exist.
        SubscriptionExists: The account has an active subscription.
    """
    # The account is locked, so that parallel requests cannot create two subscriptions.
    if current_session().scalar(select(User.id).where(User.id == user_id).with_for_update()) is None:
        raise NotFound(value=user_id)
    now = utc_now()
    existing = select(Subscription.id).where(Subscription.user_id == user_id, active_condition(now))
    if current_session().scalar(existing) is not None:
        raise SubscriptionExists()
    # An expired subscription can still be marked as active; the unique index allows one.
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
    """Replace the plan and the payment state of a subscription. Used credits and the period do not change.

    A new tier changes the price of the period by the difference of the list prices for the remaining time. An
    absent `payment_id` is removed; an absent `payment_status` or `is_active` does not change. Activation
    deactivates the other active subscription of the account.
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
        if subscription.credits_low_at is None and _is_low(subscription):
            subscription.credits_low_at = utc_now()
            current_session().flush()
            _emit_low_credits(subscription.id)
    subscription.payment_id = body.get("payment_id")
    subscription.payment_status = body.get("payment_status", subscription.payment_status)
    subscription.is_active = body.get("is_active", subscription.is_active)
    current_session().flush()


def renew_subscription(subscription: Subscription) -> None:
    """Start the next period with all credits, at the end of the current one or now, whichever is later.

    A deactivated subscription stays deactivated.
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
    """Write the ledger entry of a change of credits."""
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
    """Return the share of the period that is left, from 0 to 1."""
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


def _becomes_low(amount: int) -> ColumnElement[bool]:
    """Return the condition that the credits are low after a charge, for the first time in their period."""
    remaining = Subscription.credits_total - Subscription.credits_used - amount
    return and_(Subscription.credits_low_at.is_(None), remaining * LOW_CREDITS < Subscription.credits_total)


def _emit_low_credits(subscription_id: UUID) -> None:
    """Emit `credits.low` to the organizations of the account that pays, and to its personal endpoints."""
    # The caller may be a member who sees neither the subscription nor all organizations of its account.
    with as_system():
        reading = select(Subscription).where(Subscription.id == subscription_id)
        subscription = current_session().scalars(reading.execution_options(populate_existing=True)).one()
        owned = select(Membership.organization_id).where(
            Membership.user_id == subscription.user_id, Membership.role == Role.OWNER
        )
        organization_ids = current_session().scalars(owned.order_by(Membership.organization_id)).all()
        emit_credits_event("credits.low", subscription, organization_ids)


def _deactivate_others(user_id: UUID, subscription_id: UUID | None = None) -> None:
    """Deactivate the other subscriptions of an account: the unique index allows one active subscription."""
    statement = update(Subscription).where(Subscription.user_id == user_id, Subscription.is_active.is_(True))
    if subscription_id is not None:
        statement = statement.where(Subscription.id != subscription_id)
    current_session().execute(statement.values(is_active=False))


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
    subscription.credits_low_at = None
    subscription.payment_status = PaymentStatus.PENDING
