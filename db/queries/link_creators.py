"""Read what the creator of a link, or of work in a queue, may do now.

Review links and share links have no rights of their own: a link does at most what its creator may do, and
what the API key may do that made it. Both are read with each use of the link, in the same statement.

This module knows no permission. `studio/accounts/permissions.py` turns roles and scopes into permissions.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, and_, bindparam, or_, select

from db.base import utc_now
from db.models.api_keys import ApiKey
from db.models.generations import Prediction, PredictionShare
from db.models.organizations import Membership
from db.models.review_links import ReviewLink
from db.models.shootings import Shooting
from db.models.users import User
from db.session import current_session


class LinkCreator(NamedTuple):
    """What the permissions of a link follow from.

    Attributes:
        role: The creator's role in the organization of the row; None for a personal row, and for a superuser
            without a membership.
        is_superuser: Whether the creator is a superuser.
        scopes: The scopes of the API key that made the link; None if the creator made it in a session, or if
            release 0.2.0 made it.
    """

    role: str | None
    is_superuser: bool
    scopes: list[str] | None


def find_creator(
    organization_id: UUID | None, account_id: UUID, api_key_id: UUID | None
) -> LinkCreator | None:
    """Return what the creator of a row may do now in its tenant; None if their access has ended.

    It has ended if the account is inactive, or is neither a member of the organization nor a superuser, or if
    the organization is suspended, or if the API key has expired or was deleted.
    The transaction needs the role of the system.

    Args:
        organization_id: The organization of the row; None for a personal row of the account.
        account_id: The account.
        api_key_id: The API key that made the row; None if the account made it in a session.
    """
    is_member = and_(
        Membership.user_id == User.id,
        Membership.organization_id == organization_id,
        Membership.suspended_at.is_(None),
    )
    is_key = and_(ApiKey.id == api_key_id, ApiKey.expires_at > utc_now())
    query = select(Membership.role, User.is_superuser, ApiKey.scopes).select_from(User)
    query = query.outerjoin(Membership, is_member).outerjoin(ApiKey, is_key)
    query = query.where(User.id == account_id, User.is_active.is_(True))
    if organization_id is not None:
        query = query.where(or_(Membership.id.is_not(None), User.is_superuser.is_(True)))
    if api_key_id is not None:
        query = query.where(ApiKey.id.is_not(None))
    row = current_session().execute(query).one_or_none()
    return None if row is None else LinkCreator(*row)


def select_with_creator(
    query: Select[*tuple[Any, ...]],
    link: type[ReviewLink] | type[PredictionShare],
    row: type[Shooting] | type[Prediction],
) -> Select[*tuple[Any, ...]]:
    """Add the columns of `LinkCreator` to a query of links, and limit it to links that have not ended.

    A link has ended if it or its API key has expired, or if its creator is inactive, or is neither a member
    of the row's organization, nor the owner of the personal row, nor a superuser. The members of a suspended
    organization have no rights in it. The database deletes links with the membership and with the API key.

    Args:
        query: A query of the link and its row. It needs the value of the bind parameter `now`.
        link: The model of the link.
        row: The model of the row that the link opens.
    """
    is_member = and_(
        Membership.id == link.membership_id,
        Membership.organization_id == row.organization_id,
        Membership.suspended_at.is_(None),
    )
    is_owner = and_(row.organization_id.is_(None), row.owner_id == User.id)
    return (
        query.add_columns(Membership.role, User.is_superuser, ApiKey.scopes)
        .join(User, User.id == link.created_by_id)
        .outerjoin(Membership, is_member)
        .outerjoin(ApiKey, ApiKey.id == link.api_key_id)
        .where(link.expires_at > bindparam("now"), User.is_active.is_(True))
        .where(or_(link.api_key_id.is_(None), ApiKey.expires_at > bindparam("now")))
        .where(or_(Membership.id.is_not(None), is_owner, User.is_superuser.is_(True)))
    )
