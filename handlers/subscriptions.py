"""Subscriptions. Users read their own; superusers create and change them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select

from db.caller import current_caller
from db.errors import NotFound
from db.models.subscriptions import CreditMovement, Subscription
from db.session import current_session
from handlers.common.pagination import ListQuery
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import require_etag_match
from handlers.common.reads import Reading, Rows
from handlers.common.responses import ApiResponse, created, ok
from handlers.schemas.subscriptions import CreditMovementSchema, SubscriptionSchema
from studio.billing import billing

SUBSCRIPTION_ROWS = Rows(Subscription, SubscriptionSchema)
ALL_SUBSCRIPTIONS = ListQuery(Subscription, SubscriptionSchema, is_global=True)
SUBSCRIPTIONS = replace(ALL_SUBSCRIPTIONS, parent={"user_id": Subscription.user_id}, is_global=False)
SUBSCRIPTION_USAGE = ListQuery(
    CreditMovement, CreditMovementSchema, parent={"subscription_id": CreditMovement.subscription_id}
)


@requires(Permission.SUBSCRIPTIONS_READ)
def list_subscriptions(**params: Any) -> Reading[ApiResponse]:
    """List the caller's subscriptions; superusers list all."""
    caller = current_caller()
    if caller.is_superuser:
        return (yield from ALL_SUBSCRIPTIONS.read_page(params))
    return (yield from SUBSCRIPTIONS.read_page({**params, "user_id": caller.user_id}))


@requires(Permission.SUBSCRIPTIONS_READ)
def get_subscription(subscription_id: UUID) -> Reading[ApiResponse]:
    """Return a subscription."""
    return (yield from SUBSCRIPTION_ROWS.ok(subscription_id, **_identify(subscription_id)))


@requires(Permission.SUBSCRIPTIONS_WRITE)
def replace_subscription(subscription_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Replace the plan and the payment status of a subscription."""
    subscription = _get_subscription(subscription_id, for_update=True)
    require_etag_match(subscription, SubscriptionSchema)
    billing.replace_subscription(subscription, body)
    return ok(subscription, SubscriptionSchema)


@requires(Permission.SUBSCRIPTIONS_WRITE)
def create_subscription(subscription_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Create a subscription of the user whose id is in the path."""
    plan = (body["service_type"], body["tier"], body.get("payment_id"))
    subscription = billing.create_subscription(subscription_id, *plan)
    return created(subscription, SubscriptionSchema, f"/api/v1/subscriptions/{subscription.id}")


@requires(Permission.SUBSCRIPTIONS_WRITE)
def renew_subscription(subscription_id: UUID) -> ApiResponse:
    """Start the next period of a subscription."""
    subscription = _get_subscription(subscription_id, for_update=True)
    billing.renew_subscription(subscription)
    return ok(subscription, SubscriptionSchema)


@requires(Permission.SUBSCRIPTIONS_READ)
def list_subscription_usage(subscription_id: UUID, **params: Any) -> Reading[ApiResponse]:
    """List the credit movements of a subscription."""
    yield from SUBSCRIPTION_ROWS.get(subscription_id, **_identify(subscription_id))
    return (yield from SUBSCRIPTION_USAGE.read_page({**params, "subscription_id": subscription_id}))


def _identify(subscription_id: UUID) -> dict[str, UUID]:
    """Return the columns of a subscription that the caller may read."""
    caller = current_caller()
    return {"id": subscription_id, **({} if caller.is_superuser else {"user_id": caller.user_id})}


def _select_visible() -> Select[Any]:
    caller = current_caller()
    query = select(Subscription)
    return query if caller.is_superuser else query.where(Subscription.user_id == caller.user_id)


def _get_subscription(subscription_id: UUID, for_update: bool = False) -> Subscription:
    query = _select_visible().where(Subscription.id == subscription_id)
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    subscription: Subscription | None = current_session().scalars(query).one_or_none()
    if subscription is None:
        raise NotFound(value=subscription_id)
    return subscription
