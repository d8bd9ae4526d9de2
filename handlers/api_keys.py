"""API keys of organizations."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from db.caller import current_caller
from db.errors import NotFound
from db.models.api_keys import ApiKey
from db.queries import organizations as query
from db.queries.api_keys import get_api_key as find_key
from db.session import current_session
from handlers.common.context import current_settings
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, requires
from handlers.common.preconditions import apply_changes, require_etag_match
from handlers.common.reads import Reading, Rows, read_permission_in
from handlers.common.responses import (
    NO_STORE,
    ApiResponse,
    encode_json,
    no_content,
    ok,
    serialize,
    strong_etag,
)
from handlers.schemas.api_keys import ApiKeySchema
from studio.accounts import api_keys

KEY_ROWS = Rows(ApiKey, ApiKeySchema)
API_KEYS = ListQuery(ApiKey, ApiKeySchema, parent={"organization_id": ApiKey.organization_id})


list_api_keys = Page(API_KEYS, Permission.API_KEYS_READ)


@requires(Permission.API_KEYS_MANAGE)
def create_api_key(organization_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Create an API key; the response contains its secret."""
    # Locked, so that concurrent requests cannot exceed the number of keys.
    organization, caller = query.get_organization(organization_id, for_update=True), current_caller()
    granted = caller.permissions_in(organization.id)
    key, secret = api_keys.create_api_key(
        organization, caller.user_id, granted, current_settings().secret_key, **body
    )
    data = serialize(key, ApiKeySchema)
    # The ETag is that of later GET responses, which do not contain the secret.
    etag = strong_etag(encode_json(data))
    location = f"/api/v1/organizations/{organization.id}/api-keys/{key.id}"
    return ApiResponse(201, {**data, "secret": secret}, {"Location": location, "ETag": etag, **NO_STORE})


@requires(Permission.API_KEYS_READ)
def get_api_key(organization_id: UUID, api_key_id: UUID) -> Reading[ApiResponse]:
    """Return an API key, without its secret."""
    yield from read_permission_in(organization_id)
    return (yield from KEY_ROWS.ok(api_key_id, id=api_key_id, organization_id=organization_id))


@requires(Permission.API_KEYS_SELF)
def get_current_api_key() -> Reading[ApiResponse]:
    """Return the API key of the request; 404 for a session, which has none."""
    caller = current_caller()
    if caller.api_key_id is None:
        raise NotFound("A session has no API key: send an API key to see what it is")
    yield from read_permission_in(caller.key_organization_id)
    return (yield from KEY_ROWS.ok(caller.api_key_id, id=caller.api_key_id))


@requires(Permission.API_KEYS_MANAGE)
def update_api_key(organization_id: UUID, api_key_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Update an API key."""
    key = _get_for_update(organization_id, api_key_id)
    apply_changes(key, body)
    current_session().flush()
    return ok(key, ApiKeySchema)


@requires(Permission.API_KEYS_MANAGE)
def delete_api_key(organization_id: UUID, api_key_id: UUID) -> ApiResponse:
    """Delete an API key; it is rejected from the next request on."""
    current_session().delete(_get_for_update(organization_id, api_key_id))
    return no_content()


def _get_for_update(organization_id: UUID, api_key_id: UUID) -> ApiKey:
    organization = query.get_organization(organization_id)
    key = find_key(organization.id, api_key_id, for_update=True)
    require_etag_match(key, ApiKeySchema)
    return key
