"""Find the review link that authenticates a guest."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select

from db.base import utc_now
from db.libpq.statements import Query, Row
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
    return _find(active_link_query(link_id))


def active_link_query(link_id: UUID) -> Query:
    """Return the query of the link of a guest's access token, which finds no row if the link has ended."""
    return Query(_BY_ID, {"link_id": link_id, "now": utc_now()})


def find_link_by_token(token_hash: str) -> ActiveLink | None:
    """Return the link with the hash of a token, or None, as `find_active_link`."""
    return _find(Query(_BY_TOKEN, {"token_hash": token_hash, "now": utc_now()}))


def parse_active_link(row: Row) -> ActiveLink:
    """Return the row that `active_link_query` found."""
    link_id, shooting_id, organization_id, owner_id, created_by_id, expires_at, *creator = row
    return ActiveLink(
        link_id, shooting_id, organization_id, owner_id, created_by_id, expires_at, LinkCreator(*creator)
    )


def _find(query: Query) -> ActiveLink | None:
    row = current_session().execute(query.statement, query.values).one_or_none()
    return None if row is None else parse_active_link(tuple(row))
