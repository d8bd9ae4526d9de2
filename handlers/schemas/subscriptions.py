"""How a subscription and its ledger look outside."""

from typing import Any

from marshmallow import fields

from db.models.subscriptions import Subscription
from handlers.schemas.fields import IdentifiedSchema, Identifier, Moment
from studio.billing import is_running


class Price(fields.Field[Any]):
    """A price that is stored in cents, as a number of the currency's units."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> float:
        return float(value) / 100


class SubscriptionSchema(IdentifiedSchema):
    """A subscription; active is what pays now."""

    user_id = Identifier()
    service_type = fields.Raw()
    tier = fields.Raw()
    payment_id = fields.Raw()
    start_date = Moment()
    end_date = Moment()
    grace_period_end = Moment()
    credits_total = fields.Raw()
    credits_used = fields.Raw()
    credits_remaining = fields.Raw()
    is_active = fields.Method("_pays_now")
    payment_status = fields.Raw()
    base_price = Price(attribute="base_price_minor")
    actual_price = Price(attribute="actual_price_minor")
    currency = fields.Raw()

    def _pays_now(self, subscription: Subscription) -> bool:
        return is_running(subscription)


class CreditMovementSchema(IdentifiedSchema):
    """An entry of the ledger."""

    subscription_id = Identifier()
    generation_id = Identifier()
    kind = fields.Raw()
    amount = fields.Raw()
    credits_total = fields.Raw()
    period_start = Moment()
