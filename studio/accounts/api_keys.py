"""Create and parse the API keys of organizations.

A key is `sk_` and 76 characters of base64url: its id, 256 random bits, and a MAC of this server. A forged
key is detected without a query, and secret scanners recognize keys by their format.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select

from db.base import new_id, utc_now
from db.errors import Conflict
from db.models.api_keys import ApiKey
from db.models.organizations import Organization
from db.session import current_session
from studio.accounts.identity.tokens import hash_token

MAX_KEYS = 50
EXPIRY_NOTICE_DAYS = (14, 1)
"""How long before its expiry a key has the event `api_key.expiring`, the longest time first."""
_PATTERN = re.compile(r"sk_[A-Za-z0-9_-]{76}")
_ID_BYTES, _RANDOM_BYTES, _MAC_BYTES = 16, 32, 9


class TooManyApiKeys(Conflict):
    """The organization has the maximum number of keys. Expired keys count."""

    code = "too_many_api_keys"
    default_detail = f"An organization has at most {MAX_KEYS} API keys"


class ScopesNotGranted(Conflict):
    """A key cannot have scopes that its creator's role does not include."""

    code = "scopes_not_granted"
    default_detail = "Your role does not include the scopes"


def generate_secret(api_key_id: UUID, secret_key: str) -> str:
    """Return a new secret for the key with this id."""
    content = api_key_id.bytes + secrets.token_bytes(_RANDOM_BYTES)
    return f"sk_{base64.urlsafe_b64encode(content + _mac(content, secret_key)).decode()}"


SECRET_PREFIX = "sk_"  # noqa: S105 - the start of each secret


def parse_secret(secret: str, secret_keys: tuple[str, ...]) -> UUID | None:
    """Return the id of the key that a secret belongs to, or None if this server did not create the secret.

    The key may have been deleted since. The server has created it with one of `secret_keys`.
    """
    if not _PATTERN.fullmatch(secret):
        return None
    raw = base64.urlsafe_b64decode(secret.removeprefix(SECRET_PREFIX))
    content, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not any(hmac.compare_digest(mac, _mac(content, secret_key)) for secret_key in secret_keys):
        return None
    return UUID(bytes=content[:_ID_BYTES])


def next_expiry_notice(expires_at: datetime, now: datetime) -> datetime | None:
    """Return the time of the first event `api_key.expiring` after now, or None if none will follow."""
    notices = (expires_at - timedelta(days=days) for days in EXPIRY_NOTICE_DAYS)
    return next((notice for notice in notices if notice > now), None)


def _mac(content: bytes, secret_key: str) -> bytes:
    return hmac.digest(secret_key.encode(), b"api key:" + content, "sha256")[:_MAC_BYTES]


def create_api_key(
    organization: Organization,
    created_by_id: UUID,
    granted: Collection[str],
    secret_key: str,
    name: str,
    scopes: list[str],
    expires_in_days: int,
) -> tuple[ApiKey, str]:
    """Create a key of a locked organization.

    Args:
        organization: The organization, locked so that parallel requests cannot exceed the maximum.
        created_by_id: The user who creates the key.
        granted: The permissions that this user has in the organization.
        secret_key: The server's secret, for the MAC.
        name: The name of the key.
        scopes: The permissions of the key.
        expires_in_days: The lifetime.

    Returns:
        The key, and its secret. Only a hash of the secret is stored.

    Raises:
        ScopesNotGranted: A scope is not in `granted`.
        TooManyApiKeys: The organization has `MAX_KEYS` keys.
    """
    not_granted = sorted(set(scopes) - set(granted))
    if not_granted:
        raise ScopesNotGranted(f"Your role does not include these scopes: {', '.join(not_granted)}")
    count = select(func.count(ApiKey.id)).where(ApiKey.organization_id == organization.id)
    if (current_session().scalar(count) or 0) >= MAX_KEYS:
        raise TooManyApiKeys(limit=MAX_KEYS)
    key_id, now = new_id(), utc_now()
    expires_at = now + timedelta(days=expires_in_days)
    secret = generate_secret(key_id, secret_key)
    key = ApiKey(
        id=key_id,
        organization_id=organization.id,
        created_by_id=created_by_id,
        name=name,
        scopes=sorted(scopes),
        secret_hash=hash_token(secret),
        last_four=secret[-4:],
        expires_at=expires_at,
        next_expiry_notice_at=next_expiry_notice(expires_at, now),
    )
    current_session().add(key)
    current_session().flush()
    return key, secret
