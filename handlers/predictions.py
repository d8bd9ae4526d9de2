"""Predictions: finished pictures, their review, their bytes, and links that share them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from db.base import utc_now
from db.errors import NotFound
from db.models.generations import Generation, Prediction
from db.models.shootings import Shooting, Shot
from db.session import session
from db.tenancy import get_owned, list_scope
from handlers.answers import SANDBOX, Answer, found_file, no_content, ok
from handlers.answers import listing as plain
from handlers.conditional import get_for_change
from handlers.current import current_settings
from handlers.paging import Listing
from handlers.permissions import Permission, checks_proof, requires
from handlers.references import SHOTS_OF_SHOOTING, current_storage, require_known
from handlers.schemas.predictions import PredictionSchema
from studio import review
from studio.media.signing import InvalidSignature, read_share, sign_share
from studio.media.variants import Original, serve

WITH_FILE = [joinedload(Prediction.media)]

PREDICTIONS = Listing(
    Prediction,
    PredictionSchema,
    filters={
        "shot_id": Prediction.shot_id,
        "generation_id": Prediction.generation_id,
        "shooting_id": Prediction.shot_id.in_(SHOTS_OF_SHOOTING),
        "status": Prediction.status,
    },
)


@requires(Permission.PREDICTIONS_READ)
def list_predictions(organization_id: UUID | None = None, **asked: Any) -> Answer:
    """The pictures of one scope."""
    require_known(
        {
            Shot: asked.get("shot_id"),
            Generation: asked.get("generation_id"),
            Shooting: asked.get("shooting_id"),
        }
    )
    return PREDICTIONS.page(asked, list_scope(organization_id))


@requires(Permission.PREDICTIONS_READ)
def get_prediction(prediction_id: UUID) -> Answer:
    """One picture with its quality, provenance and review."""
    return ok(get_owned(Prediction, prediction_id), PredictionSchema)


@requires(Permission.PREDICTIONS_WRITE)
def delete_prediction(prediction_id: UUID) -> Answer:
    """Remove a picture that is neither approved nor exported."""
    _locked(prediction_id)
    review.delete_picture(get_for_change(Prediction, prediction_id, PredictionSchema))
    return no_content()


@requires(Permission.PREDICTIONS_REVIEW)
def approve_prediction(prediction_id: UUID, body: dict[str, Any]) -> Answer:
    """Approve a picture and with it its shot."""
    prediction, shot = _locked(prediction_id)
    review.approve_picture(prediction, shot, body.get("note"))
    return ok(prediction, PredictionSchema)


@requires(Permission.PREDICTIONS_REVIEW)
def reject_prediction(prediction_id: UUID, body: dict[str, Any]) -> Answer:
    """Reject a picture that is in review."""
    prediction, _ = _locked(prediction_id)
    review.reject_picture(prediction, body["reason"])
    return ok(prediction, PredictionSchema)


@requires(Permission.PREDICTIONS_REVIEW)
def reopen_prediction(prediction_id: UUID) -> Answer:
    """Bring a picture back into review."""
    prediction, shot = _locked(prediction_id)
    review.reopen_picture(prediction, shot)
    return ok(prediction, PredictionSchema)


@requires(Permission.PREDICTIONS_READ)
def get_prediction_image(prediction_id: UUID, width: int | None = None, format_: str | None = None) -> Answer:
    """The bytes of a picture, as stored or as a variant."""
    return _image(get_owned(Prediction, prediction_id, options=WITH_FILE), width, format_)


@requires(Permission.PREDICTIONS_SHARE)
def share_prediction(prediction_id: UUID, body: dict[str, Any]) -> Answer:
    """Make a link that opens the picture without a token until it expires."""
    prediction, settings = get_owned(Prediction, prediction_id), current_settings()
    expires_at = (utc_now() + timedelta(seconds=body["expires_in_seconds"])).replace(microsecond=0)
    token = sign_share(settings.secret_key, prediction.id, expires_at)
    address = f"{settings.public_url}/api/v1/shared/predictions/{token}"
    return plain({"url": address, "expires_at": expires_at}, Cache_Control="no-store")


@checks_proof
def get_shared_image(share_token: str, width: int | None = None, format_: str | None = None) -> Answer:
    """The bytes of a picture that was shared; the link is the credential."""
    try:
        prediction_id = read_share(current_settings().secret_key, share_token, utc_now())
    except InvalidSignature:
        raise NotFound() from None
    shared = select(Prediction).where(Prediction.id == prediction_id)  # unscoped: the signature grants it
    prediction = session().scalars(shared.options(*WITH_FILE)).one_or_none()
    if prediction is None:
        raise NotFound()
    answer = _image(prediction, width, format_)
    # It was shared to be shown: on pages of others too.
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return answer


def _image(prediction: Prediction, width: int | None, format_: str | None) -> Answer:
    media = prediction.media
    original = Original(media.id, media.extension, media.width, media.content_hash)
    file = serve(current_storage(), original, width, format_)
    return found_file(
        file.path,
        file.content_type,
        file.tag,
        Cache_Control="private, max-age=300",
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX,
    )


def _locked(prediction_id: UUID) -> tuple[Prediction, Shot | None]:
    """The picture and its shot, both locked: the shot first, as everybody does who changes both."""
    shot_id, shot = get_owned(Prediction, prediction_id).shot_id, None
    if shot_id is not None:
        shot = get_owned(Shot, shot_id, for_update=True)
    return get_owned(Prediction, prediction_id, for_update=True), shot
