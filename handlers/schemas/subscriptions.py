"""How a subscription and its ledger look outside."""

from typing import Any

from marshmallow import fields

from db.models.subscriptions import Subscription
from handlers.schemas.fields import IdentifiedSchema, Timestamp, Uuid
from studio.billing import is_subscription_active


class Price(fields.Field[Any]):
    """A price that is stored in cents, as a number of the currency's units."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> float:
        return float(value) / 100


class SubscriptionSchema(IdentifiedSchema):
    """A subscription; active is what pays now."""

    user_id = Uuid()
    service_type = fields.Raw()
    tier = fields.Raw()
    payment_id = fields.Raw()
    start_date = Timestamp()
    end_date = Timestamp()
    grace_period_end = Timestamp()
    credits_total = fields.Raw()
    credits_used = fields.Raw()
    credits_remaining = fields.Raw()
    is_active = fields.Method("_pays_now")
    payment_status = fields.Raw()
    base_price = Price(attribute="base_price_minor")
    actual_price = Price(attribute="actual_price_minor")
    currency = fields.Raw()

    def _pays_now(self, subscription: Subscription) -> bool:
        return is_subscription_active(subscription)


class CreditMovementSchema(IdentifiedSchema):
    """An entry of the ledger."""

    subscription_id = Uuid()
    generation_id = Uuid()
    kind = fields.Raw()
    amount = fields.Raw()
    credits_total = fields.Raw()
    period_start = Timestamp()
