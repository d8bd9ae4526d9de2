"""Serialize subscriptions and their credit movements."""

from typing import Any

from marshmallow import fields

from handlers.schemas.fields import IdentifiedSchema, Timestamp, Uuid
from studio.billing.billing import is_subscription_active


class Price(fields.Field[Any]):
    """A price that is stored in minor units (cents), in units of the currency."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> float:
        return float(value) / 100


class SubscriptionSchema(IdentifiedSchema):
    """A subscription. It is active while its owner can spend its credits."""

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
    is_active = fields.Function(is_subscription_active)
    payment_status = fields.Raw()
    base_price = Price(attribute="base_price_minor")
    actual_price = Price(attribute="actual_price_minor")
    currency = fields.Raw()


class CreditMovementSchema(IdentifiedSchema):
    """A credit movement."""

    subscription_id = Uuid()
    generation_id = Uuid()
    kind = fields.Raw()
    amount = fields.Raw()
    credits_total = fields.Raw()
    period_start = Timestamp()
