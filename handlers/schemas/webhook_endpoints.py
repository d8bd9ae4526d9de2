"""Serialize webhook endpoints and deliveries. Only one schema contains the secret."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from db.models.webhooks import WebhookDelivery, WebhookEndpoint
from handlers.common.context import current_settings
from handlers.schemas.fields import IdentifiedSchema, OwnedSchema, Timestamp, Uuid
from studio.webhooks.outbox import build_body
from studio.webhooks.signing import derive_secret


class WebhookEndpointSchema(OwnedSchema):
    """A webhook endpoint without its secret."""

    url = fields.Raw()
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


def _secret(endpoint: WebhookEndpoint) -> str:
    return derive_secret(current_settings().secret_key, endpoint.secret_salt)


def _body(delivery: WebhookDelivery) -> dict[str, Any]:
    return build_body(delivery.payload, current_settings().public_url)
