"""API keys of organizations: made, renamed and deleted by those who run one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.models.api_keys import ApiKey
from db.queries import organizations as query
from db.queries.api_keys import get_api_key as find_key
from db.session import session
from db.tenancy import current_caller
from handlers.answers import NO_STORE, Answer, encode_json, no_content, ok, present, strong_etag
from handlers.conditional import apply_changes, require_fresh
from handlers.current import current_settings
from handlers.paging import Listing
from handlers.permissions import Permission, requires
from handlers.schemas.api_keys import ApiKeySchema
from studio.api_keys import make_api_key

API_KEYS = Listing(ApiKey, ApiKeySchema, within={"organization_id": ApiKey.organization_id})


@requires(Permission.API_KEYS_READ)
def list_api_keys(organization_id: UUID, **asked: Any) -> Answer:
    """The keys of one organization, without their secrets."""
    asked["organization_id"] = query.get_organization(organization_id).id
    return API_KEYS.page(asked)


@requires(Permission.API_KEYS_MANAGE)
def create_api_key(organization_id: UUID, body: dict[str, Any]) -> Answer:
    """Make a key; the answer holds its secret."""
    # Locked, so that of two that find the last place free one gets it.
    organization, caller = query.get_organization(organization_id, for_update=True), current_caller()
    granted = caller.granted(organization.id)
    key, secret = make_api_key(organization, caller.user_id, granted, current_settings().secret_key, **body)
    shown = present(key, ApiKeySchema)
    # The tag is that of the key as it is read from now on, without the secret.
    tag = strong_etag(encode_json(shown))
    location = f"/api/v1/organizations/{organization.id}/api-keys/{key.id}"
    return Answer(201, {**shown, "secret": secret}, {"Location": location, "ETag": tag, **NO_STORE})


@requires(Permission.API_KEYS_READ)
def get_api_key(organization_id: UUID, api_key_id: UUID) -> Answer:
    """One key, without its secret."""
    organization = query.get_organization(organization_id)
    return ok(find_key(organization.id, api_key_id), ApiKeySchema)


@requires(Permission.API_KEYS_MANAGE)
def update_api_key(organization_id: UUID, api_key_id: UUID, body: dict[str, Any]) -> Answer:
    """Rename a key."""
    key = _for_change(organization_id, api_key_id)
    apply_changes(key, body)
    session().flush()
    return ok(key, ApiKeySchema)


@requires(Permission.API_KEYS_MANAGE)
def delete_api_key(organization_id: UUID, api_key_id: UUID) -> Answer:
    """Remove a key: the next request with it is refused."""
    session().delete(_for_change(organization_id, api_key_id))
    return no_content()


def _for_change(organization_id: UUID, api_key_id: UUID) -> ApiKey:
    organization = query.get_organization(organization_id)
    key = find_key(organization.id, api_key_id, for_update=True)
    require_fresh(key, ApiKeySchema)
    return key
