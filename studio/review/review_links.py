"""Create, exchange and revoke the links with which guests review a shooting.

Only a hash of a link's token is stored. A link works until it expires or is deleted, and only while its
creator may make review links, also with the API key that made it (`db/queries/link_creators.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select

from db.audit import set_guest
from db.base import utc_now
from db.caller import Caller
from db.errors import InvalidToken, NotFound
from db.models.review_links import ReviewLink
from db.models.shootings import Shooting
from db.queries.guests import ActiveLink, find_link_by_token
from db.queries.link_creators import LinkCreator
from db.queries.statements import delete_in_batches
from db.session import Database, current_session
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.review.shares import find_membership, require_link_capacity


def create_review_link(shooting: Shooting, caller: Caller, expires_in_days: int) -> tuple[ReviewLink, str]:
    """Create a link to a shooting that the caller may share.

    Returns:
        The link, and its token. Only a hash of the token is stored.

    Raises:
        TooManyLinks: The shooting or the account has the maximum number of links.
    """
    require_link_capacity(ReviewLink, ReviewLink.shooting_id == shooting.id)
    token = generate_token("rl")
    link = ReviewLink(
        shooting_id=shooting.id,
        created_by_id=caller.user_id,
        membership_id=find_membership(shooting.organization_id, caller.user_id),
        api_key_id=caller.api_key_id,
        token_hash=hash_token(token),
        expires_at=utc_now() + timedelta(days=expires_in_days),
    )
    current_session().add(link)
    current_session().flush()
    return link, token


def get_review_link(shooting: Shooting, link_id: UUID) -> ReviewLink:
    """Return a link to a shooting that the caller has loaded.

    Raises:
        NotFound: The shooting has no such link, or the link has expired.
    """
    link = current_session().scalar(
        select(ReviewLink).where(
            ReviewLink.id == link_id,
            ReviewLink.shooting_id == shooting.id,
            ReviewLink.expires_at > utc_now(),
        )
    )
    if link is None:
        raise NotFound(value=link_id)
    return link


def delete_review_link(link: ReviewLink) -> None:
    """Delete a link. The access tokens of its guests work no more."""
    current_session().delete(link)
    current_session().flush()


def exchange_review_link(token: str, may_have_guests: Callable[[LinkCreator], bool]) -> ActiveLink:
    """Return the link of a token. The transaction needs the role of the system.

    Args:
        token: The token.
        may_have_guests: Returns whether the creator of the link may make review links now.

    Raises:
        InvalidToken: The link is unknown, expired or deleted, or may have no guests any more.
    """
    link = find_link_by_token(hash_token(token))
    if link is None or not may_have_guests(link.creator):
        raise InvalidToken()
    set_guest(link.id, link.organization_id, link.owner_id)
    return link


def delete_expired_links(database: Database, now: datetime) -> int:
    """Delete the links that have expired and return their number."""
    return delete_in_batches(database, [ReviewLink.id], ReviewLink.expires_at <= now)
