"""Invitations for tests: rows, beside those of `tests.factories`, and what is asked of the API about them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from db.base import utc_now
from db.models import Invitation, Organization
from handlers.app import Application
from tests import factories
from tests.api.conftest import Client
from tests.api.mailbox import token_mailed_to
from tests.contract.mini.asking import Reply

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


def invitations(organization: Organization) -> str:
    """The path of the invitations of one organization."""
    return f"/organizations/{organization.id}/invitations"


def invite(client: Client, organization: Organization, address: str = ADDRESS, role: str = "member") -> Reply:
    """Invite an address."""
    return client("POST", invitations(organization), {"email": address, "role": role})


def mailed(app: Application, address: str = ADDRESS) -> str:
    """The token that was mailed last to an address."""
    return token_mailed_to(app, address.lower(), "iv")


def accept(anybody: Client, token: str, **more: str) -> Reply:
    """Spend a token; `more` is what a new account gets."""
    return anybody("POST", "/invitations/accept", {"token": token, **more})
