"""Share predictions by links that open the image without authentication, and end such links.

The token of a link is the signed id of its row. A link opens the image until it expires, is deleted, or its
creator loses the membership with which it was made.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, and_, or_, select

from db.base import utc_now
from db.caller import Caller
from db.errors import NotFound
from db.models.generations import Prediction, PredictionShare
from db.models.organizations import Membership
from db.models.users import User
from db.queries.statements import delete_in_batches
from db.session import Database, current_session
from studio.media.signing import InvalidSignature, verify_share, verify_unstored_share


def share_prediction(prediction: Prediction, caller: Caller, expires_in_seconds: int) -> PredictionShare:
    """Create the row of a link to a prediction that the caller may share."""
    share = PredictionShare(
        prediction_id=prediction.id,
        created_by_id=caller.user_id,
        membership_id=find_membership(prediction.organization_id, caller.user_id),
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


def select_shared_prediction(secrets: tuple[str, ...], token: str) -> Select[Prediction]:
    """Return the statement that selects the prediction of a link, or no row if the link has ended.

    The transaction needs the role of the system: only the token tells which tenant's rows are needed.

    Args:
        secrets: The server's secrets.
        token: The last segment of the link.

    Raises:
        InvalidSignature: This server did not make the token, or it was altered.
    """
    now = utc_now()
    try:
        share_id = verify_share(secrets, token)
    except InvalidSignature:
        # Links of 0.1.0 have no row. They work until they expire, within 30 days of the upgrade.
        prediction_id = verify_unstored_share(secrets, token, now)
        return select(Prediction).where(Prediction.id == prediction_id)  # unscoped: the signature grants it
    # unscoped: the signature grants it
    return (
        select(Prediction)
        .join(PredictionShare, PredictionShare.prediction_id == Prediction.id)
        .join(User, User.id == PredictionShare.created_by_id)
        .where(PredictionShare.id == share_id, PredictionShare.expires_at > now, User.is_active.is_(True))
        .where(
            or_(
                # The database deletes the row with the membership.
                PredictionShare.membership_id.is_not(None),
                and_(Prediction.organization_id.is_(None), Prediction.owner_id == User.id),
                User.is_superuser.is_(True),
            )
        )
    )


def delete_expired_shares(database: Database, now: datetime) -> int:
    """Delete the links that have expired and return their number."""
    return delete_in_batches(database, [PredictionShare.id], PredictionShare.expires_at <= now)


def find_membership(organization_id: UUID | None, user_id: UUID) -> UUID | None:
    """Return the id of a user's membership; None on personal rows, and for a superuser without one."""
    if organization_id is None:
        return None
    mine = (Membership.organization_id == organization_id, Membership.user_id == user_id)
    return current_session().scalar(select(Membership.id).where(*mine))
