"""Create API keys for tests, and the Authorization header that a client sends."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from db.base import utc_now
from db.models import ApiKey, ApiUsage, Organization, User
from handlers.app import Application
from studio.accounts.api_keys import generate_secret
from studio.accounts.identity.tokens import hash_token
from tests.support import factories


def make_api_key(organization: Organization, created_by: User | None = None, **values: Any) -> ApiKey:
    """Create a key whose secret is unknown. Its default creator is the organization's owner."""
    defaults: dict[str, Any] = {
        "organization_id": organization.id,
        "created_by_id": created_by.id if created_by else organization.owner_id,
        "name": "Shop import",
        "scopes": ["brands:read"],
        "secret_hash": f"!{uuid.uuid4().hex}",
        "last_four": "x9Qd",
        "expires_at": utc_now() + timedelta(days=90),
    }
    return factories.make(ApiKey(**(defaults | values)))


def make_api_usage(key: ApiKey, **values: Any) -> ApiUsage:
    """Create the use of a part of `list_products` by a key, with a name of its own."""
    defaults: dict[str, Any] = {
        "organization_id": key.organization_id,
        "api_key_id": key.id,
        "day": utc_now().date(),
        "operation_id": "list_products",
        "kind": "parameter",
        "name": f"limit_{uuid.uuid4().hex}",
        "is_deprecated": False,
        "calls": 1,
    }
    return factories.make(ApiUsage(**(defaults | values)))


def api_key_headers(
    app: Application,
    organization: Organization,
    scopes: Iterable[str],
    created_by: User | None = None,
    **values: Any,
) -> dict[str, str]:
    """Create a key with these scopes, without the API, and return its Authorization header."""
    key_id = values.pop("id", None) or uuid.uuid4()
    secret = generate_secret(key_id, app.settings.secret_key)
    own = {
        "id": key_id,
        "scopes": sorted(scopes),
        "secret_hash": hash_token(secret),
        "last_four": secret[-4:],
    }
    make_api_key(organization, created_by, **own, **values)
    return {"authorization": f"Bearer {secret}"}
