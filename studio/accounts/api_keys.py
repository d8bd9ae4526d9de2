"""API keys of organizations: how one is spelled, and how one comes to be.

A key is `sk_` and 76 characters: its id, 256 random bits, and a mark that only this server can make. So a
made-up one is told by arithmetic alone, and tools that look for leaked secrets know one by its form.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from db.base import new_id, utc_now
from db.errors import Conflict
from db.models.api_keys import ApiKey
from db.models.organizations import Organization
from db.session import current_session
from studio.accounts.identity.tokens import hash_token

MAX_KEYS = 50
_PATTERN = re.compile(r"sk_[A-Za-z0-9_-]{76}")
_ID_BYTES, _RANDOM_BYTES, _MAC_BYTES = 16, 32, 9


class TooManyApiKeys(Conflict):
    """The organization has as many keys as it can, expired ones included."""

    code = "too_many_api_keys"
    default_detail = f"An organization has at most {MAX_KEYS} API keys"


class ScopesNotGranted(Conflict):
    """A key was to be allowed what its maker is not."""

    code = "scopes_not_granted"
    default_detail = "The scopes are beyond your role"


def generate_secret(api_key_id: UUID, secret_key: str) -> str:
    """A new secret of the key with this id."""
    content = api_key_id.bytes + secrets.token_bytes(_RANDOM_BYTES)
    return f"sk_{base64.urlsafe_b64encode(content + _mac(content, secret_key)).decode()}"


def parse_secret(secret: str, secret_key: str) -> UUID | None:
    """The id of the key that a secret was made for, None when this server did not make it.

    Whether the key is still there, only the database knows.
    """
    if not _PATTERN.fullmatch(secret):
        return None
    raw = base64.urlsafe_b64decode(secret.removeprefix("sk_"))
    content, mark = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not hmac.compare_digest(mark, _mac(content, secret_key)):
        return None
    return UUID(bytes=content[:_ID_BYTES])


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
    """A new key of a locked organization and its secret, which is kept nowhere.

    `granted` is what whoever makes it may do there. ScopesNotGranted, TooManyApiKeys.
    """
    beyond = sorted(set(scopes) - set(granted))
    if beyond:
        raise ScopesNotGranted(f"The scopes are beyond your role: {', '.join(beyond)}")
    ours = select(func.count(ApiKey.id)).where(ApiKey.organization_id == organization.id)
    if (current_session().scalar(ours) or 0) >= MAX_KEYS:
        raise TooManyApiKeys()
    key_id = new_id()
    secret = generate_secret(key_id, secret_key)
    key = ApiKey(
        id=key_id,
        organization_id=organization.id,
        created_by_id=created_by_id,
        name=name,
        scopes=sorted(scopes),
        secret_hash=hash_token(secret),
        last_four=secret[-4:],
        expires_at=utc_now() + timedelta(days=expires_in_days),
    )
    current_session().add(key)
    current_session().flush()
    return key, secret
