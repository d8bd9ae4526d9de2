"""How a webhook endpoint and what is sent to it look outside. The secret shows in one schema only."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from db.models.webhooks import WebhookDelivery, WebhookEndpoint
from handlers.current import current_settings
from handlers.schemas.fields import IdentifiedSchema, Identifier, Moment, OwnedSchema
from studio.webhooks.outbox import body_of
from studio.webhooks.signing import secret_of


class WebhookEndpointSchema(OwnedSchema):
    """An endpoint without its secret."""

    url = fields.Raw()
    description = fields.Raw()
    event_types = fields.Raw()
    is_enabled = fields.Raw()
    disabled_at = Moment()
    disabled_reason = fields.Raw()
    failing_since = Moment()
    previous_secret_expires_at = Moment()


class WebhookEndpointCreatedSchema(WebhookEndpointSchema):
    """An endpoint with its secret: for the answers that make one."""

    secret = fields.Function(lambda endpoint: _secret(endpoint))


class WebhookDeliverySchema(IdentifiedSchema):
    """A message with the body that is sent."""

    endpoint_id = Identifier()
    message_id = fields.Raw()
    event_type = fields.Raw()
    status = fields.Raw()
    attempts = fields.Raw()
    next_attempt_at = Moment()
    last_attempt_at = Moment()
    last_status_code = fields.Raw()
    last_error = fields.Raw()
    delivered_at = Moment()
    payload = fields.Function(lambda delivery: _body(delivery))


def _secret(endpoint: WebhookEndpoint) -> str:
    return secret_of(current_settings().secret_key, endpoint.secret_salt)


def _body(delivery: WebhookDelivery) -> dict[str, Any]:
    return body_of(delivery.payload, current_settings().public_url)
