"""Find the review link that authenticates a guest."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, bindparam, select

from db.base import utc_now
from db.models.review_links import ReviewLink
from db.models.shootings import Shooting
from db.queries.link_creators import LinkCreator, select_with_creator
from db.session import current_session

# unscoped: only the link tells which tenant's rows are needed
_ACTIVE_LINK = select_with_creator(
    select(
        ReviewLink.id,
        ReviewLink.shooting_id,
        Shooting.organization_id,
        Shooting.owner_id,
        ReviewLink.created_by_id,
        ReviewLink.expires_at,
    ).join(Shooting, Shooting.id == ReviewLink.shooting_id),
    ReviewLink,
    Shooting,
)
_BY_ID = _ACTIVE_LINK.where(ReviewLink.id == bindparam("link_id"))
_BY_TOKEN = _ACTIVE_LINK.where(ReviewLink.token_hash == bindparam("token_hash"))


class ActiveLink(NamedTuple):
    """A review link that has not ended, with the tenant of its shooting.

    It works only while its creator may make review links, which the permissions of `creator` say.
    """

    id: UUID
    shooting_id: UUID
    organization_id: UUID | None
    owner_id: UUID
    created_by_id: UUID
    expires_at: datetime
    creator: LinkCreator


def find_active_link(link_id: UUID) -> ActiveLink | None:
    """Return the link of a guest's access token, or None if it was revoked or has expired.

    The transaction needs the role of the system. One statement.
    """
    return _find(_BY_ID, link_id=link_id)


def find_link_by_token(token_hash: str) -> ActiveLink | None:
    """Return the link with the hash of a token, or None, as `find_active_link`."""
    return _find(_BY_TOKEN, token_hash=token_hash)


def _find(query: Select[*tuple[Any, ...]], **values: Any) -> ActiveLink | None:
    row = current_session().execute(query, {**values, "now": utc_now()}).one_or_none()
    if row is None:
        return None
    return ActiveLink(
        row.id,
        row.shooting_id,
        row.organization_id,
        row.owner_id,
        row.created_by_id,
        row.expires_at,
        LinkCreator(row.role, row.is_superuser, row.scopes),
    )
