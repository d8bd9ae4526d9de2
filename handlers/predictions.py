"""Predictions: the images that generations made, their review, comments, share links, publications."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.orm import joinedload

from db.caller import acting_for_tenant, current_caller, require_permission_in
from db.errors import NotFound
from db.models.comments import PredictionComment
from db.models.generations import Generation, Prediction, PredictionShare
from db.models.media import MediaResource
from db.models.products import Product
from db.models.shootings import Shooting, Shot
from db.session import current_session
from db.tenancy import find_locked, get_visible, lock_rows, select_visible
from handlers.common.context import current_settings, current_storage
from handlers.common.pagination import ListQuery, Page
from handlers.common.permissions import Permission, authenticates_itself, may_share_predictions, requires
from handlers.common.preconditions import get_for_update
from handlers.common.reads import One
from handlers.common.references import (
    OF_PRODUCTS,
    SHOTS_OF_SHOOTING,
)
from handlers.common.responses import (
    SANDBOX_CSP,
    ApiResponse,
    created,
    file_response,
    json_response,
    no_content,
    ok,
    serialize,
)
from handlers.files import image_response
from handlers.pipeline.admission.rate_limits import consume_public_image
from handlers.pipeline.batches import Action, list_target_ids, run_batch
from handlers.schemas.predictions import (
    PredictionCommentSchema,
    PredictionSchema,
    PredictionShareSchema,
    PublicationSchema,
)
from studio.media.signing import InvalidSignature, sign_share
from studio.publications import publish
from studio.publications.files import find_published_file, list_formats, list_widths, to_original
from studio.review import comments, review, shares
from studio.webhooks.events import preload_products

FILE_OPTIONS = [joinedload(Prediction.media)]
CACHE_CONTROL = "private, max-age=300"
INEXACT_MAX_AGE = 5
"""Seconds for which caches may store another file than the published variant that was requested."""

PREDICTIONS = ListQuery(
    Prediction,
    PredictionSchema,
    filters={
        "shot_id": Prediction.shot_id,
        "generation_id": Prediction.generation_id,
        "shooting_id": Prediction.shot_id.in_(SHOTS_OF_SHOOTING),
        "status": Prediction.status,
        "products": OF_PRODUCTS["predictions"],
    },
)
COMMENTS = ListQuery(
    PredictionComment,
    PredictionCommentSchema,
    parent={"prediction_id": PredictionComment.prediction_id},
)
SHARES = ListQuery(
    PredictionShare,
    PredictionShareSchema,
    parent={
        "prediction_id": PredictionShare.prediction_id,
        "now": PredictionShare.expires_at > bindparam("now"),
    },
)


list_predictions = Page(
    PREDICTIONS,
    Permission.PREDICTIONS_READ,
    narrowed_by={
        "shot_id": Shot,
        "generation_id": Generation,
        "shooting_id": Shooting,
        "product_id": Product,
    },
)


get_prediction = One(Prediction, PredictionSchema, Permission.PREDICTIONS_READ)


@requires(Permission.PREDICTIONS_WRITE)
def delete_prediction(prediction_id: UUID) -> ApiResponse:
    """Delete a prediction that is neither approved nor exported."""
    _get_locked(prediction_id)
    review.delete_prediction(get_for_update(Prediction, prediction_id, PredictionSchema))
    return no_content()


@requires(Permission.PREDICTIONS_REVIEW)
def approve_prediction(prediction_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Approve a prediction and its shot."""
    prediction, shot = _get_locked(prediction_id)
    with acting_for_tenant():
        review.approve_prediction(prediction, shot, body.get("note"))
    return ok(prediction, PredictionSchema)


@requires(Permission.PREDICTIONS_REVIEW)
def reject_prediction(prediction_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Reject a prediction that is in review."""
    prediction, _ = _get_locked(prediction_id)
    with acting_for_tenant():
        review.reject_prediction(prediction, body["reason"])
    return ok(prediction, PredictionSchema)


@requires(Permission.PREDICTIONS_REVIEW)
def reopen_prediction(prediction_id: UUID) -> ApiResponse:
    """Return a prediction to review."""
    prediction, shot = _get_locked(prediction_id)
    with acting_for_tenant():
        review.reopen_prediction(prediction, shot)
    return ok(prediction, PredictionSchema)


BATCH_ACTIONS = {
    "approve": Action(approve_prediction, "prediction_id"),
    "reject": Action(reject_prediction, "prediction_id"),
    "reopen": Action(reopen_prediction, "prediction_id", has_body=False),
}


@requires(Permission.PREDICTIONS_REVIEW)
def batch_predictions(body: dict[str, Any], organization_id: UUID | None = None) -> ApiResponse:
    """Approve, reject and reopen predictions; a rejected item does not affect the others."""
    require_permission_in(organization_id)
    prediction_ids = list_target_ids(body["items"])
    of_batch = select_visible(Prediction).where(Prediction.id.in_(prediction_ids))
    shot_ids = current_session().scalars(of_batch.with_only_columns(Prediction.shot_id))
    # All code locks shots before predictions.
    lock_rows(Shot, Shot.id.in_(shot_ids.all()), organization_id)
    predictions = lock_rows(Prediction, Prediction.id.in_(prediction_ids), organization_id)
    preload_products(predictions)
    return run_batch(body["items"], BATCH_ACTIONS, organization_id, predictions)


@requires(Permission.PREDICTIONS_READ)
def get_prediction_image(
    prediction_id: UUID, width: int | None = None, format_: str | None = None
) -> ApiResponse:
    """Return the image of a prediction, in its original form or as a variant."""
    prediction = get_visible(Prediction, prediction_id, options=FILE_OPTIONS)
    return image_response(prediction.media, width, format_, CACHE_CONTROL)


@requires(Permission.PREDICTIONS_SHARE)
def share_prediction(prediction_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Create a link that opens the image without a token until it expires or ends."""
    prediction, settings = get_visible(Prediction, prediction_id), current_settings()
    share = shares.share_prediction(prediction, current_caller(), body["expires_in_seconds"])
    url = f"{settings.public_url}/api/v1/shared/predictions/{sign_share(settings.secret_key, share.id)}"
    row = serialize(share, PredictionShareSchema)
    link = {"id": row["id"], "url": url, "expires_at": row["expires_at"]}
    return json_response(link, Cache_Control="no-store")


list_prediction_shares = Page(SHARES, Permission.PREDICTIONS_READ, parent=Prediction)


@requires(Permission.PREDICTIONS_SHARE)
def delete_prediction_share(prediction_id: UUID, share_id: UUID) -> ApiResponse:
    """End a link that shares a prediction."""
    shares.delete_prediction_share(get_visible(Prediction, prediction_id), share_id)
    return no_content()


list_prediction_comments = Page(COMMENTS, Permission.COMMENTS_READ, parent=Prediction)


@requires(Permission.COMMENTS_WRITE)
def create_prediction_comment(prediction_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Add a comment to a prediction."""
    prediction = get_visible(Prediction, prediction_id, for_update=True)
    comment = comments.create_prediction_comment(prediction, body)
    location = f"/api/v1/predictions/{prediction.id}/comments/{comment.id}"
    return created(comment, PredictionCommentSchema, location)


get_prediction_comment = One(PredictionComment, PredictionCommentSchema, Permission.COMMENTS_READ)


@requires(Permission.COMMENTS_WRITE)
def update_prediction_comment(prediction_id: UUID, comment_id: UUID, body: dict[str, Any]) -> ApiResponse:
    """Change a comment of the caller."""
    comment = _get_locked_comment(prediction_id, comment_id)
    comments.update_prediction_comment(comment, body)
    return ok(comment, PredictionCommentSchema)


@requires(Permission.COMMENTS_WRITE)
def delete_prediction_comment(prediction_id: UUID, comment_id: UUID) -> ApiResponse:
    """Delete a comment of the caller."""
    comments.delete_prediction_comment(_get_locked_comment(prediction_id, comment_id))
    return no_content()


@requires(Permission.PREDICTIONS_SHARE)
def publish_prediction(prediction_id: UUID) -> ApiResponse:
    """Publish the image of an approved prediction at a URL that needs no credential."""
    prediction, _ = _get_locked(prediction_id)
    settings = current_settings()
    publication, token = publish.publish_prediction(prediction, settings.secret_keys)
    original = to_original(get_visible(MediaResource, prediction.media_id))
    name = f"{original.content_hash}.{original.extension}"
    return json_response(
        {
            "url": f"{settings.public_url}/api/v1/published/{token}/{name}",
            "widths": list_widths(original),
            "formats": list_formats(original),
            **serialize(publication, PublicationSchema),
        }
    )


@requires(Permission.PREDICTIONS_SHARE)
def unpublish_prediction(prediction_id: UUID) -> ApiResponse:
    """End the publication of a prediction."""
    prediction, _ = _get_locked(prediction_id)
    publish.unpublish_prediction(prediction)
    return no_content()


@authenticates_itself
def get_published_image(publish_token: str, file_name: str, width: int | None = None) -> ApiResponse:
    """Return the image of a published prediction, or a variant that exists."""
    content_hash, _, extension = file_name.partition(".")
    publication = publish.find_published(publish_token, content_hash)
    if publication is None:
        raise NotFound(value=publish_token)
    consume_public_image(publication.prediction)
    original = to_original(publication.prediction.media)
    if extension not in list_formats(original):
        raise NotFound(value=file_name)
    published = find_published_file(current_storage(), original, extension, width)
    max_age = current_settings().published_max_age
    if not published.is_exact:
        max_age = min(max_age, INEXACT_MAX_AGE)
    return file_response(
        published.file.path,
        published.file.content_type,
        published.file.tag,
        Cache_Control=f"public, max-age={max_age}",
        Access_Control_Allow_Origin="*",
        Cross_Origin_Resource_Policy="cross-origin",
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX_CSP,
    )


@authenticates_itself
def get_shared_image(share_token: str, width: int | None = None, format_: str | None = None) -> ApiResponse:
    """Return the image of a shared prediction; the link is the credential."""
    try:
        shared = shares.find_shared_prediction(current_settings().secret_keys, share_token, FILE_OPTIONS)
    except InvalidSignature:
        raise NotFound(value=share_token) from None
    if shared is None or not (shared.creator is None or may_share_predictions(shared.creator)):
        raise NotFound(value=share_token)
    consume_public_image(shared.prediction)
    response = image_response(shared.prediction.media, width, format_, CACHE_CONTROL)
    # Other sites may embed shared images.
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


def _get_locked_comment(prediction_id: UUID, comment_id: UUID) -> PredictionComment:
    of_prediction = [PredictionComment.prediction_id == prediction_id]
    return get_for_update(PredictionComment, comment_id, PredictionCommentSchema, where=of_prediction)


def _get_locked(prediction_id: UUID) -> tuple[Prediction, Shot | None]:
    """Return a prediction and its shot, both locked. All code locks the shot first, to avoid deadlocks."""
    prediction, shot = find_locked(Prediction, prediction_id), None
    shot_id = (prediction or get_visible(Prediction, prediction_id)).shot_id
    if shot_id is not None:
        shot = find_locked(Shot, shot_id) or get_visible(Shot, shot_id, for_update=True)
    return prediction or get_visible(Prediction, prediction_id, for_update=True), shot
