"""The permissions of each role, and what an API key or a link may do.

The table of the contract, `openapi/permissions.yaml`, grants them and has the reasons.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path

import orjson

from db.queries.link_creators import LinkCreator

BUNDLE = Path(__file__).parents[2] / "openapi" / "openapi.json"


class Permission(StrEnum):
    """A permission, as in `x-permission` of the contract."""

    ACCOUNT_SELF = "account:self"
    ORGANIZATIONS_CREATE = "organizations:create"
    ORGANIZATIONS_READ = "organizations:read"
    ORGANIZATIONS_WRITE = "organizations:write"
    ORGANIZATIONS_DELETE = "organizations:delete"
    ORGANIZATIONS_TRANSFER = "organizations:transfer"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    AUDIT_READ = "audit:read"
    USAGE_READ = "usage:read"
    INVITATIONS_READ = "invitations:read"
    INVITATIONS_WRITE = "invitations:write"
    API_KEYS_READ = "api_keys:read"
    API_KEYS_MANAGE = "api_keys:manage"
    IDENTITY_PROVIDERS_MANAGE = "identity_providers:manage"
    API_KEYS_SELF = "api_keys:self"
    SUBSCRIPTIONS_READ = "subscriptions:read"
    SUBSCRIPTIONS_WRITE = "subscriptions:write"
    USERS_ADMIN = "users:admin"
    UPLOADS_WRITE = "uploads:write"
    SEARCH_READ = "search:read"
    FILES_READ = "files:read"
    BRANDS_READ = "brands:read"
    BRANDS_WRITE = "brands:write"
    PRODUCTS_READ = "products:read"
    PRODUCTS_WRITE = "products:write"
    SHOOTINGS_READ = "shootings:read"
    SHOOTINGS_WRITE = "shootings:write"
    SHOTS_READ = "shots:read"
    SHOTS_WRITE = "shots:write"
    SHOTS_GENERATE = "shots:generate"
    SHOTS_REVIEW = "shots:review"
    SUBJECTS_READ = "subjects:read"
    SUBJECTS_WRITE = "subjects:write"
    STYLES_READ = "styles:read"
    STYLES_WRITE = "styles:write"
    GUIDELINES_READ = "guidelines:read"
    GUIDELINES_WRITE = "guidelines:write"
    SHOT_TYPES_READ = "shot_types:read"
    SHOT_TYPES_WRITE = "shot_types:write"
    BACKGROUND_PRESETS_READ = "background_presets:read"
    BACKGROUND_PRESETS_WRITE = "background_presets:write"
    RESOLUTION_PRESETS_READ = "resolution_presets:read"
    RESOLUTION_PRESETS_WRITE = "resolution_presets:write"
    GENERATION_MODELS_READ = "generation_models:read"
    GENERATION_MODELS_WRITE = "generation_models:write"
    GENERATIONS_READ = "generations:read"
    GENERATIONS_WRITE = "generations:write"
    PREDICTIONS_READ = "predictions:read"
    PREDICTIONS_WRITE = "predictions:write"
    PREDICTIONS_REVIEW = "predictions:review"
    PREDICTIONS_SHARE = "predictions:share"
    COMMENTS_READ = "comments:read"
    COMMENTS_WRITE = "comments:write"
    REVIEW_LINKS_MANAGE = "review_links:manage"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_MANAGE = "webhooks:manage"
    EXPORTS_READ = "exports:read"
    EXPORTS_WRITE = "exports:write"
    DESTINATIONS_MANAGE = "destinations:manage"
    CHANGES_READ = "changes:read"


_TABLE: dict[str, list[str]] = orjson.loads(BUNDLE.read_bytes())["x-permissions"]
"""The roles that have each permission: `openapi/permissions.yaml`."""


def _permissions_of(role: str) -> frozenset[str]:
    return frozenset(permission for permission in Permission if role in _TABLE.get(permission, ()))


SUPERUSER_ONLY = frozenset(name for name, roles in _TABLE.items() if roles == ["superuser"])

ACCOUNT_WIDE = frozenset(
    {Permission.ACCOUNT_SELF, Permission.ORGANIZATIONS_CREATE, Permission.SUBSCRIPTIONS_READ}
)
"""Permissions on the whole account, which a session of an organization's identity provider does not have."""

EVERY_KEY = frozenset({Permission.API_KEYS_SELF})
"""The permissions of each API key, whatever its scopes. Nobody else has them, not even superusers."""

ROLES = {role: _permissions_of(role) for role in ("viewer", "member", "admin", "owner")}
"""The permissions of a role in its organization. Owners of personal rows have PERSONAL."""

PERSONAL = _permissions_of("personal")

API_KEYS = _permissions_of("key") - EVERY_KEY
"""The permissions that an API key can have: the scopes of the contract."""

GUESTS: frozenset[str] = frozenset(
    {
        Permission.SHOOTINGS_READ,
        Permission.SHOTS_READ,
        Permission.PRODUCTS_READ,
        Permission.PREDICTIONS_READ,
        Permission.PREDICTIONS_REVIEW,
        Permission.COMMENTS_READ,
        Permission.COMMENTS_WRITE,
        Permission.FILES_READ,
    }
)
"""The permissions of a guest on the rows of their shooting, for operations with `x-guest-access`."""


def key_permissions(role: str, scopes: Collection[str]) -> frozenset[str]:
    """Return the permissions of an API key: those of its creator's present role that its scopes name.

    A key with any scope may read what it is.
    """
    return (ROLES[role] & API_KEYS & frozenset(scopes)) | EVERY_KEY


def link_permissions(creator: LinkCreator) -> frozenset[str]:
    """Return what the creator of a link may do now on its row, and may do with the API key that made it."""
    if creator.scopes is not None:
        # A key acts as a member, also if its creator is a superuser. It has no rights on personal rows.
        return frozenset() if creator.role is None else key_permissions(creator.role, creator.scopes)
    if creator.is_superuser:
        return frozenset(Permission) - EVERY_KEY
    return PERSONAL if creator.role is None else ROLES[creator.role]


def may_have_guests(creator: LinkCreator) -> bool:
    """Return whether the creator of a review link may make review links now."""
    return Permission.REVIEW_LINKS_MANAGE in link_permissions(creator)


def may_share_predictions(creator: LinkCreator) -> bool:
    """Return whether the creator of a share link may share predictions now."""
    return Permission.PREDICTIONS_SHARE in link_permissions(creator)


def may_go_on(creator: LinkCreator | None, *permissions: Permission) -> bool:
    """Return whether work that was requested may go on: its requester still has one of these permissions."""
    return creator is not None and not link_permissions(creator).isdisjoint(permissions)
