"""Find API keys: those of an organization, and the one that authenticates a request. Record their uses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import and_, bindparam, or_, select, text, update
from sqlalchemy.orm import Session

from db.base import new_id, utc_now
from db.libpq.statements import Query
from db.models.api_keys import ApiKey
from db.models.organizations import Membership
from db.models.users import User
from db.queries.statements import get_row
from db.session import current_session, run_in_separate_transaction

LAST_USED_INTERVAL = timedelta(minutes=1)
"""A key's `last_used_at` is written at most this often."""

# A key acts with its creator's current role, so the creator must still be a member and active.
_ACTIVE_KEY = (
    select(
        User.id,
        User.email,
        ApiKey.organization_id,
        Membership.role,
        ApiKey.scopes,
        ApiKey.last_used_at,
        User.full_name,
        Membership.suspended_at.is_not(None),
    )
    .join(
        Membership,
        and_(
            Membership.organization_id == ApiKey.organization_id, Membership.user_id == ApiKey.created_by_id
        ),
    )
    .join(User, User.id == Membership.user_id)
    .where(
        ApiKey.id == bindparam("api_key_id"),
        ApiKey.secret_hash == bindparam("secret_hash"),
        ApiKey.expires_at > bindparam("now"),
        User.is_active.is_(True),
    )
)


class KeyOwner(NamedTuple):
    """The user who created a key, and the key's organization."""

    user_id: UUID
    email: str
    organization_id: UUID


class ActiveKey(NamedTuple):
    """A valid key with its creator and the creator's current role."""

    user_id: UUID
    email: str
    organization_id: UUID
    role: str
    scopes: list[str]
    last_used_at: datetime | None
    full_name: str | None
    is_suspended: bool
    """Whether the organization is suspended."""


def get_api_key(organization_id: UUID, api_key_id: UUID, for_update: bool = False) -> ApiKey:
    """Return a key of an organization that the caller may see.

    Raises:
        NotFound: The organization has no such key.
    """
    query = select(ApiKey).where(ApiKey.organization_id == organization_id, ApiKey.id == api_key_id)
    return get_row(query, api_key_id, for_update)


def find_key_owner(api_key_id: UUID) -> KeyOwner | None:
    """Return the creator of a key, even if the key has expired; None if it was deleted."""
    query = (
        select(User.id, User.email, ApiKey.organization_id)
        .join(User, User.id == ApiKey.created_by_id)
        .where(ApiKey.id == api_key_id)
    )
    row = current_session().execute(query).one_or_none()
    return KeyOwner(*row) if row else None


def find_active_key(api_key_id: UUID, secret_hash: str) -> ActiveKey | None:
    """Return the key that authenticates a request, with one statement, or None if it is not valid.

    A key is not valid if it is deleted or expired, or if its creator is inactive or left the organization.
    """
    query = active_key_query(api_key_id, secret_hash)
    row = current_session().execute(query.statement, query.values).one_or_none()
    return ActiveKey(*row) if row else None


def active_key_query(api_key_id: UUID, secret_hash: str) -> Query:
    """Return the query of the `ActiveKey` of a request, which finds no row if the key is not valid."""
    return Query(_ACTIVE_KEY, {"api_key_id": api_key_id, "secret_hash": secret_hash, "now": utc_now()})


def is_use_due(last_used_at: datetime | None) -> bool:
    """Return whether a use of a key must be recorded now."""
    return last_used_at is None or last_used_at <= utc_now() - LAST_USED_INTERVAL


def touch_last_used(api_key_id: UUID, last_used_at: datetime | None) -> None:
    """Record the use of a key, at most once a minute, even if the running transaction rolls back."""
    if not is_use_due(last_used_at):
        return
    now = utc_now()

    def write(session: Session) -> None:
        # Checked again in the statement: requests of the same key run at the same time.
        stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= now - LAST_USED_INTERVAL)
        # A use does not change the key, so `updated_at` keeps its value in spite of `onupdate`.
        values = {"last_used_at": now, "updated_at": ApiKey.updated_at}
        session.execute(update(ApiKey).where(ApiKey.id == api_key_id, stale).values(values))

    run_in_separate_transaction(write)


class KeyUse(NamedTuple):
    """How often an API key used a part of the contract on one day: the columns of `ApiUsage`."""

    api_key_id: UUID
    day: date
    operation_id: str
    kind: str
    name: str
    is_deprecated: bool
    sunset_at: datetime | None
    replacement: str | None
    calls: int
    used_at: datetime


# In the order of the unique constraint, so that two processes never wait for each other. Keys that were
# deleted since are left out.
_ADD_USES = text("""
INSERT INTO api_usage (
    id, organization_id, api_key_id, day, operation_id, kind, name, is_deprecated, sunset_at, replacement,
    calls, created_at, updated_at
)
SELECT used.id, api_keys.organization_id, api_key_id, day, operation_id, kind, used.name, is_deprecated,
    sunset_at, replacement, calls, used_at, used_at
FROM json_to_recordset(CAST(:uses AS json)) AS used(
    id uuid, api_key_id uuid, day date, operation_id text, kind text, name text, is_deprecated boolean,
    sunset_at timestamptz, replacement text, calls bigint, used_at timestamptz
)
JOIN api_keys ON api_keys.id = used.api_key_id
ORDER BY api_key_id, day, operation_id, kind, used.name
ON CONFLICT (api_key_id, day, operation_id, kind, name) DO UPDATE SET
    is_deprecated = excluded.is_deprecated,
    sunset_at = excluded.sunset_at,
    replacement = excluded.replacement,
    calls = api_usage.calls + excluded.calls,
    updated_at = greatest(api_usage.updated_at, excluded.updated_at)
""")


def add_uses(uses: Iterable[KeyUse]) -> None:
    """Add uses to those that are recorded, with one statement. A part of a key and day occurs once."""
    rows = [{"id": new_id(), **use._asdict()} for use in uses]
    current_session().execute(_ADD_USES, {"uses": json.dumps(rows, default=str)})
