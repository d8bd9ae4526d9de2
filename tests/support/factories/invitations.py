"""Invitations for tests: rows, beside those of `tests.support.factories`, and what is asked of the API
about them."""

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
    """An open invitation as a member; a `token_hash` that is given lets a test know the token."""
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
    """The path of the invitations of one organization."""
    return f"/organizations/{organization.id}/invitations"


def invite(
    client: Client, organization: Organization, address: str = ADDRESS, role: str = "member"
) -> ClientResponse:
    """Invite an address."""
    return client("POST", invitations_path(organization), {"email": address, "role": role})


def get_invitation_token(app: Application, address: str = ADDRESS) -> str:
    """The token that was mailed last to an address."""
    return get_mailed_token(app, address.lower(), "iv")


def accept(anonymous: Client, token: str, **fields: str) -> ClientResponse:
    """Spend a token; `more` is what a new account gets."""
    return anonymous("POST", "/invitations/accept", {"token": token, **fields})
