"""Create invitations for tests, and send and accept them through the API."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from db.base import utc_now
from db.models import Invitation, Organization
from handlers.app import Application
from tests.api.conftest import Client
from tests.support import factories
from tests.support.client import ClientResponse
from tests.support.mailbox import get_mailed_token

PASSWORD = "a-linen-dress-in-may"
ADDRESS = "Ines@Example.com"


def make_invitation(organization: Organization, **values: Any) -> Invitation:
    """Create an open invitation with the role member. Pass `token_hash` if the test needs the token."""
    number = uuid.uuid4().hex
    defaults = {
        "organization_id": organization.id,
        "email": f"{number}@example.com",
        "role": "member",
        "invited_by_id": organization.owner_id,
        "token_hash": f"!{number}",
        "expires_at": utc_now() + timedelta(days=7),
    }
    return factories.make(Invitation(**(defaults | values)))


def invitations_path(organization: Organization) -> str:
    """Return the path of an organization's invitations."""
    return f"/organizations/{organization.id}/invitations"


def invite(
    client: Client, organization: Organization, address: str = ADDRESS, role: str = "member"
) -> ClientResponse:
    """Invite an e-mail address."""
    return client("POST", invitations_path(organization), {"email": address, "role": role})


def get_invitation_token(app: Application) -> str:
    """Return the token of the newest invitation to ADDRESS."""
    return get_mailed_token(app, ADDRESS.lower(), "iv")


def accept(anonymous: Client, token: str, **fields: str) -> ClientResponse:
    """Accept an invitation. `fields` are the fields of a new account."""
    return anonymous("POST", "/invitations/accept", {"token": token, **fields})
