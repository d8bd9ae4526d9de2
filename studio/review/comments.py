"""Comments on predictions: who may change them, and how many a prediction can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select

from db.caller import current_caller
from db.errors import Conflict, PermissionDenied
from db.models.comments import PredictionComment
from db.models.generations import Prediction
from db.session import current_session

MAX_COMMENTS = 500


class TooManyComments(Conflict):
    """The prediction has the maximum number of comments."""

    code = "too_many_comments"
    default_detail = f"A prediction can have {MAX_COMMENTS} comments: delete some first"


def create_prediction_comment(prediction: Prediction, values: Mapping[str, Any]) -> PredictionComment:
    """Add a comment of the caller to a locked prediction.

    Args:
        prediction: The locked prediction, so that two requests cannot both add the last comment.
        values: The text and, optionally, the position in the image.

    Raises:
        TooManyComments: The prediction has `MAX_COMMENTS` comments.
    """
    # unscoped: the comments on a row that was loaded for the caller
    of_prediction = select(func.count()).where(PredictionComment.prediction_id == prediction.id)
    if (current_session().scalar(of_prediction) or 0) >= MAX_COMMENTS:
        raise TooManyComments(limit=MAX_COMMENTS)
    caller = current_caller()
    comment = PredictionComment(
        prediction_id=prediction.id,
        owner_id=prediction.owner_id,
        organization_id=prediction.organization_id,
        author_id=caller.account_id,
        review_link_id=caller.guest.link_id if caller.guest else None,
        author_name=caller.name,
    )
    _apply(comment, values)
    current_session().add(comment)
    current_session().flush()
    return comment


def update_prediction_comment(comment: PredictionComment, values: Mapping[str, Any]) -> None:
    """Change the text or the position of a locked comment of the caller; absent values stay.

    Raises:
        PermissionDenied: Someone else wrote it.
    """
    _require_author(comment)
    _apply(comment, values)
    current_session().flush()


def _apply(comment: PredictionComment, values: Mapping[str, Any]) -> None:
    if "text" in values:
        comment.text = values["text"]
    if "position" in values:
        point = values["position"] or {}
        comment.position_x, comment.position_y = point.get("x"), point.get("y")


def _require_author(comment: PredictionComment) -> None:
    """Check that the caller or one of their API keys wrote a comment, or that the caller is a superuser.

    A guest may change what was written with their review link.

    Raises:
        PermissionDenied: Someone else wrote it.
    """
    caller = current_caller()
    if caller.guest is not None:
        is_author = comment.review_link_id == caller.guest.link_id
    else:
        is_author = comment.author_id == caller.user_id or caller.is_superuser
    if not is_author:
        raise PermissionDenied()


def delete_prediction_comment(comment: PredictionComment) -> None:
    """Delete a locked comment of the caller.

    Raises:
        PermissionDenied: Someone else wrote it.
    """
    _require_author(comment)
    current_session().delete(comment)
    current_session().flush()
