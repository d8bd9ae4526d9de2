"""Share predictions by links that open the image without authentication, and end such links.

The token of a link is the signed id of its row. A link opens the image until it expires or is deleted, and
only while its creator may share predictions, also with the API key that made it
(`db/queries/link_creators.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, func, select
from sqlalchemy.orm.interfaces import ORMOption

from db.base import utc_now
from db.caller import Caller, current_caller
from db.errors import Conflict, NotFound
from db.models.generations import Prediction, PredictionShare
from db.models.organizations import Membership
from db.models.review_links import ReviewLink
from db.queries.link_creators import LinkCreator, select_with_creator
from db.queries.statements import delete_in_batches
from db.queries.users import lock_for_count
from db.session import Database, current_session, query_as_system
from studio.media.signing import InvalidSignature, verify_share, verify_unstored_share

# unscoped: the signature grants it
_SHARED = select_with_creator(
    select(Prediction)
    .join(PredictionShare, PredictionShare.prediction_id == Prediction.id)
    .where(PredictionShare.id == bindparam("share_id")),
    PredictionShare,
    Prediction,
)


MAX_LINKS_OF_ROW = 50
"""The most links to one shooting or prediction that have not expired."""
MAX_LINKS_OF_ACCOUNT = 1_000
"""The most links of one account, with its API keys, that have not expired."""


class TooManyLinks(Conflict):
    """The shooting, the prediction or the account has the maximum number of links."""

    code = "too_many_links"
    default_detail = (
        f"At most {MAX_LINKS_OF_ROW} links can exist: delete some first, or wait until they expire"
    )


def require_link_capacity(
    link: type[PredictionShare] | type[ReviewLink], of_row: ColumnElement[bool]
) -> None:
    """Check that the caller may create another link.

    Args:
        link: The model of the link.
        of_row: The condition of the links to the same row.

    Raises:
        TooManyLinks: The row or the account has the maximum number of links.
    """
    user_id, now = current_caller().user_id, utc_now()
    # Locked, so that concurrent requests cannot exceed the maximum.
    lock_for_count(user_id)
    counted = select(func.count()).select_from(link).where(of_row, link.expires_at > now)
    if (current_session().scalar(counted) or 0) >= MAX_LINKS_OF_ROW:
        raise TooManyLinks(limit=MAX_LINKS_OF_ROW)
    of_account = [
        select(func.count()).select_from(model).where(model.created_by_id == user_id, model.expires_at > now)
        for model in (PredictionShare, ReviewLink)
    ]
    # The caller may have left an organization with links, which the account still has.
    if sum(query_as_system(query)[0] for query in of_account) >= MAX_LINKS_OF_ACCOUNT:
        detail = (
            f"The account has {MAX_LINKS_OF_ACCOUNT:,} links: delete some first, or wait until they expire"
        )
        raise TooManyLinks(detail, limit=MAX_LINKS_OF_ACCOUNT)


def share_prediction(prediction: Prediction, caller: Caller, expires_in_seconds: int) -> PredictionShare:
    """Create the row of a link to a prediction that the caller may share.

    Raises:
        TooManyLinks: The prediction or the account has the maximum number of links.
    """
    require_link_capacity(PredictionShare, PredictionShare.prediction_id == prediction.id)
    share = PredictionShare(
        prediction_id=prediction.id,
        created_by_id=caller.user_id,
        membership_id=find_membership(prediction.organization_id, caller.user_id),
        api_key_id=caller.api_key_id,
        expires_at=(utc_now() + timedelta(seconds=expires_in_seconds)).replace(microsecond=0),
    )
    current_session().add(share)
    current_session().flush()
    return share


def delete_prediction_share(prediction: Prediction, share_id: UUID) -> None:
    """Delete a link to a prediction; it opens the image no more.

    Raises:
        NotFound: The prediction has no such link, or the link has expired.
    """
    share = current_session().scalar(
        select(PredictionShare).where(
            PredictionShare.id == share_id,
            PredictionShare.prediction_id == prediction.id,
            PredictionShare.expires_at > utc_now(),
        )
    )
    if share is None:
        raise NotFound(value=share_id)
    current_session().delete(share)
    current_session().flush()


class SharedPrediction(NamedTuple):
    """The prediction of a link that has not ended.

    The link works only while its creator may share predictions, which the permissions of `creator` say. It is
    None for a link of release 0.1.0.
    """

    prediction: Prediction
    creator: LinkCreator | None


def find_shared_prediction(
    secrets: tuple[str, ...], token: str, options: Sequence[ORMOption] = ()
) -> SharedPrediction | None:
    """Return the prediction of a link, or None if the link has ended.

    The transaction needs the role of the system: only the token tells which tenant's rows are needed.

    Args:
        secrets: The server's secrets.
        token: The last segment of the link.
        options: Loader options of the prediction.

    Raises:
        InvalidSignature: This server did not make the token, or it was altered.
    """
    now = utc_now()
    try:
        share_id = verify_share(secrets, token)
    except InvalidSignature:
        # Links of 0.1.0 have no row. They work until they expire, within 30 days of the upgrade.
        prediction_id = verify_unstored_share(secrets, token, now)
        # unscoped: the signature grants it
        query = select(Prediction).where(Prediction.id == prediction_id).options(*options)
        prediction = current_session().scalars(query).one_or_none()
        return None if prediction is None else SharedPrediction(prediction, None)
    values = {"share_id": share_id, "now": now}
    row = current_session().execute(_SHARED.options(*options), values).one_or_none()
    return None if row is None else SharedPrediction(row[0], LinkCreator(*row[1:]))


def delete_expired_shares(database: Database, now: datetime) -> int:
    """Delete the links that have expired and return their number."""
    return delete_in_batches(database, [PredictionShare.id], PredictionShare.expires_at <= now)


def find_membership(organization_id: UUID | None, user_id: UUID) -> UUID | None:
    """Return the id of a user's membership; None on personal rows, and for a superuser without one."""
    if organization_id is None:
        return None
    mine = (Membership.organization_id == organization_id, Membership.user_id == user_id)
    return current_session().scalar(select(Membership.id).where(*mine))
