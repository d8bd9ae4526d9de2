"""Serialize webhook endpoints and deliveries. Only one schema contains the secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import fields

from db.models.webhooks import WebhookDelivery, WebhookEndpoint
from handlers.common.context import current_settings
from handlers.schemas.fields import IdentifiedSchema, OwnedSchema, Timestamp, Uuid
from studio.webhooks.messages import current_salts, sign_message
from studio.webhooks.outbox import build_body
from studio.webhooks.signing import derive_secret


class WebhookEndpointSchema(OwnedSchema):
    """A webhook endpoint without its secret."""

    delivery = fields.Raw()
    url = fields.Function(lambda endpoint: _url(endpoint))
    description = fields.Raw()
    event_types = fields.Raw()
    is_enabled = fields.Raw()
    disabled_at = Timestamp()
    disabled_reason = fields.Raw()
    failing_since = Timestamp()
    previous_secret_expires_at = Timestamp()


class WebhookEndpointCreatedSchema(WebhookEndpointSchema):
    """A webhook endpoint with its secret, for responses that create one."""

    secret = fields.Function(lambda endpoint: _secret(endpoint))


class WebhookDeliverySchema(IdentifiedSchema):
    """A delivery with the body that is sent."""

    endpoint_id = Uuid()
    message_id = fields.Raw()
    event_type = fields.Raw()
    status = fields.Raw()
    attempts = fields.Raw()
    next_attempt_at = Timestamp()
    last_attempt_at = Timestamp()
    last_status_code = fields.Raw()
    last_error = fields.Raw()
    delivered_at = Timestamp()
    payload = fields.Function(lambda delivery: _body(delivery))


def sign_messages(endpoint: WebhookEndpoint, deliveries: Sequence[WebhookDelivery]) -> list[dict[str, Any]]:
    """Return waiting messages with their bodies and the headers that sign them now."""
    settings, salts = current_settings(), current_salts(endpoint)
    signed = [sign_message(settings, each.message_id, each.payload, salts) for each in deliveries]
    return [
        {
            "message_id": delivery.message_id,
            "delivery_id": str(delivery.id),
            "event_type": delivery.event_type,
            "headers": message.headers,
            "body": message.body,
        }
        for delivery, message in zip(deliveries, signed, strict=True)
    ]


def _url(endpoint: WebhookEndpoint) -> str:
    """Return the URL of an endpoint: its own, or the one that its messages are polled from."""
    if endpoint.url is not None:
        return endpoint.url
    return f"{current_settings().public_url}/api/v1/webhook-endpoints/{endpoint.id}/messages"


def _secret(endpoint: WebhookEndpoint) -> str:
    return derive_secret(current_settings().secret_key, endpoint.secret_salt)


def _body(delivery: WebhookDelivery) -> dict[str, Any]:
    return build_body(delivery.payload, current_settings().public_url)
