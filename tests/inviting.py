"""Rows of invitations for tests, beside those of `tests.factories`."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from db.base import utc_now
from db.models import Invitation, Organization
from tests import factories


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
