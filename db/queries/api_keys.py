"""Reading API keys: those of one organization, and the one that signs a request."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import and_, bindparam, or_, select, update
from sqlalchemy.orm import Session

from db.base import utc_now
from db.errors import NotFound
from db.models.api_keys import ApiKey
from db.models.organizations import Membership
from db.models.users import User
from db.session import current_session, run_in_separate_transaction

LAST_USED_INTERVAL = timedelta(minutes=1)


_ACTIVE_KEY = (
    select(User.id, User.email, ApiKey.organization_id, Membership.role, ApiKey.scopes, ApiKey.last_used_at)
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
    """Who made a key, and for which organization."""

    user_id: UUID
    email: str
    organization_id: UUID


class ActiveKey(NamedTuple):
    """A key that holds, with whom it acts for and the role that they have now."""

    user_id: UUID
    email: str
    organization_id: UUID
    role: str
    scopes: list[str]
    last_used_at: datetime | None


def get_api_key(organization_id: UUID, api_key_id: UUID, for_update: bool = False) -> ApiKey:
    """One key of an organization the caller may see; NotFound when there is none."""
    query = select(ApiKey).where(ApiKey.organization_id == organization_id, ApiKey.id == api_key_id)
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    key = current_session().scalars(query).one_or_none()
    if key is None:
        raise NotFound()
    return key


def find_key_owner(api_key_id: UUID) -> KeyOwner | None:
    """Who made a key, whether or not it still holds; None when it was deleted."""
    query = (
        select(User.id, User.email, ApiKey.organization_id)
        .join(User, User.id == ApiKey.created_by_id)
        .where(ApiKey.id == api_key_id)
    )
    row = current_session().execute(query).one_or_none()
    return KeyOwner(*row) if row else None


def find_active_key(api_key_id: UUID, secret_hash: str) -> ActiveKey | None:
    """The key that signs a request, by one statement; None when it does not hold.

    It does not when it was deleted or has expired, or whoever made it left or is locked.
    """
    asked = {"api_key_id": api_key_id, "secret_hash": secret_hash, "now": utc_now()}
    row = current_session().execute(_ACTIVE_KEY, asked).one_or_none()
    return ActiveKey(*row) if row else None


def touch_last_used(api_key_id: UUID, last_used_at: datetime | None) -> None:
    """Remember that a key was used, at most once a minute, whatever comes of the running transaction."""
    now = utc_now()
    if last_used_at is not None and last_used_at > now - LAST_USED_INTERVAL:
        return

    def write(apart: Session) -> None:
        stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= now - LAST_USED_INTERVAL)
        # A use is no change of the key: its `updated_at` stays.
        noted = {"last_used_at": now, "updated_at": ApiKey.updated_at}
        apart.execute(update(ApiKey).where(ApiKey.id == api_key_id, stale).values(noted))

    run_in_separate_transaction(write)
