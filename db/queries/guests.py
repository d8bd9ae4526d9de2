"""Find the review link that authenticates a guest."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import and_, bindparam, or_, select

from db.base import utc_now
from db.models.review_links import ReviewLink
from db.models.shootings import Shooting
from db.models.users import User
from db.session import current_session

# A link ends with the membership of its creator: the database deletes the row.
# unscoped: only the link tells which tenant's rows are needed
_ACTIVE_LINK = (
    select(
        ReviewLink.id,
        ReviewLink.shooting_id,
        Shooting.organization_id,
        Shooting.owner_id,
        ReviewLink.created_by_id,
        ReviewLink.expires_at,
    )
    .join(Shooting, Shooting.id == ReviewLink.shooting_id)
    .join(User, User.id == ReviewLink.created_by_id)
    .where(ReviewLink.expires_at > bindparam("now"), User.is_active.is_(True))
    .where(
        or_(
            ReviewLink.membership_id.is_not(None),
            and_(Shooting.organization_id.is_(None), Shooting.owner_id == User.id),
            User.is_superuser.is_(True),
        )
    )
)
_BY_ID = _ACTIVE_LINK.where(ReviewLink.id == bindparam("link_id"))
_BY_TOKEN = _ACTIVE_LINK.where(ReviewLink.token_hash == bindparam("token_hash"))


class ActiveLink(NamedTuple):
    """A review link that works, with the tenant of its shooting."""

    id: UUID
    shooting_id: UUID
    organization_id: UUID | None
    owner_id: UUID
    created_by_id: UUID
    expires_at: datetime


def find_active_link(link_id: UUID) -> ActiveLink | None:
    """Return the link of a guest's access token, or None if it was revoked or has expired.

    The transaction needs the role of the system. One statement.
    """
    row = current_session().execute(_BY_ID, {"link_id": link_id, "now": utc_now()}).one_or_none()
    return ActiveLink(*row) if row else None


def find_link_by_token(token_hash: str) -> ActiveLink | None:
    """Return the link with the hash of a token, or None, as `find_active_link`."""
    row = current_session().execute(_BY_TOKEN, {"token_hash": token_hash, "now": utc_now()}).one_or_none()
    return ActiveLink(*row) if row else None
