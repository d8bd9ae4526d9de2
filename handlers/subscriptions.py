"""Subscriptions: everybody reads the own ones, superusers give and change them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select

from db.errors import NotFound
from db.models.subscriptions import CreditMovement, Subscription
from db.session import session
from db.tenancy import current_caller
from handlers.answers import Answer, created, ok
from handlers.conditional import require_fresh
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.schemas.subscriptions import CreditMovementSchema, SubscriptionSchema
from studio.billing import change_plan, renew, subscribe

EVERY_SUBSCRIPTION = Listing(Subscription, SubscriptionSchema, of_everybody=True)
SUBSCRIPTIONS = replace(EVERY_SUBSCRIPTION, within={"user_id": Subscription.user_id}, of_everybody=False)
SUBSCRIPTION_USAGE = Listing(
    CreditMovement, CreditMovementSchema, within={"subscription_id": CreditMovement.subscription_id}
)


@requires(Permission.SUBSCRIPTIONS_READ)
def list_subscriptions(**asked: Any) -> Answer:
    """The caller's subscriptions; all for superusers."""
    caller = current_caller()
    if caller.is_superuser:
        return EVERY_SUBSCRIPTION.page(asked)
    return SUBSCRIPTIONS.page({**asked, "user_id": caller.user_id})


@requires(Permission.SUBSCRIPTIONS_READ)
def get_subscription(subscription_id: UUID) -> Answer:
    """One subscription."""
    return ok(_find(subscription_id), SubscriptionSchema)


@requires(Permission.SUBSCRIPTIONS_WRITE)
def replace_subscription(subscription_id: UUID, body: dict[str, Any]) -> Answer:
    """Set plan and payment state."""
    subscription = _find(subscription_id, for_update=True)
    require_fresh(subscription, SubscriptionSchema)
    change_plan(subscription, body)
    return ok(subscription, SubscriptionSchema)


@requires(Permission.SUBSCRIPTIONS_WRITE)
def create_subscription(subscription_id: UUID, body: dict[str, Any]) -> Answer:
    """Give the account whose id the path holds a plan."""
    plan = (body["service_type"], body["tier"], body.get("payment_id"))
    subscription = subscribe(subscription_id, *plan)
    return created(subscription, SubscriptionSchema, f"/api/v1/subscriptions/{subscription.id}")


@requires(Permission.SUBSCRIPTIONS_WRITE)
def renew_subscription(subscription_id: UUID) -> Answer:
    """Begin the next period."""
    subscription = _find(subscription_id, for_update=True)
    renew(subscription)
    return ok(subscription, SubscriptionSchema)


@requires(Permission.SUBSCRIPTIONS_READ)
def list_subscription_usage(subscription_id: UUID, **asked: Any) -> Answer:
    """The ledger of one subscription."""
    asked["subscription_id"] = _find(subscription_id).id
    return SUBSCRIPTION_USAGE.page(asked)


def _visible() -> Select[Any]:
    caller = current_caller()
    query = select(Subscription)
    return query if caller.is_superuser else query.where(Subscription.user_id == caller.user_id)


def _find(subscription_id: UUID, for_update: bool = False) -> Subscription:
    query = _visible().where(Subscription.id == subscription_id)
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    found: Subscription | None = session().scalars(query).one_or_none()
    if found is None:
        raise NotFound()
    return found
