"""The letter to an endpoint's owner when the server has disabled it: nothing else would tell them."""

from __future__ import annotations

from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import select

from db.models.users import User
from db.models.webhooks import WebhookEndpoint
from db.session import Database
from studio.accounts.identity.mail import get_mailer
from studio.settings import Settings

_REASONS = {
    "gone": "it answered that it is gone (410)",
    "failing": "nothing that was sent to it has arrived for five days",
}


def notify_owner(settings: Settings, database: Database, endpoint_id: UUID) -> None:
    """Write to the owner of an endpoint that was disabled; nothing when that is over by now."""
    with database.transaction(write=False) as reading:
        query = select(WebhookEndpoint, User.email)  # unscoped: the endpoint that was served
        query = query.where(WebhookEndpoint.id == endpoint_id)
        query = query.join(User, User.id == WebhookEndpoint.owner_id).where(User.is_active)
        found = reading.execute(query).one_or_none()
    if found is None:
        return
    endpoint, email = found
    reason = _REASONS.get(endpoint.disabled_reason or "")
    if reason is None:
        return
    mailer = get_mailer(settings)
    # The host only: the rest of an address may hold a credential.
    host = urlsplit(endpoint.url).hostname
    text = (
        f"Your webhook endpoint at {host} was disabled, because {reason}.\n\n"
        f"When it works again, enable it with PATCH {settings.public_url}/api/v1/webhook-endpoints/"
        f'{endpoint.id} and {{"is_enabled": true}}, and send again what failed with POST to its /redeliver.\n'
    )
    mailer.send(mailer.compose(email, "A webhook endpoint was disabled", text))
