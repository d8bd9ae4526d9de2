"""Publish predictions at public URLs, and end such publications.

The token in a URL has 128 bits. It is derived from the id of the row and the server's secret, so that
publishing again returns the same URL, and only its hash is stored, so that a copy of the database opens no
image. Each function changes rows that the caller has loaded and locked.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import contains_eager

from db.base import new_id, utc_now
from db.models.generations import Prediction, PredictionPublication, PublicationStatus
from db.models.media import MediaResource
from db.models.organizations import is_suspended
from db.session import current_session
from studio.state_machines import DELIVERABLE, NotApproved
from studio.webhooks.events import emit_prediction_event

_TOKEN_BYTES = 16


def publish_prediction(prediction: Prediction, secrets: tuple[str, ...]) -> tuple[PredictionPublication, str]:
    """Publish a locked prediction, unless it is published; return the publication and its token.

    Variants that are missing are made again.

    Args:
        prediction: The locked prediction.
        secrets: The server's secrets, the current one first.

    Raises:
        NotApproved: The prediction is in review or rejected.
    """
    if prediction.status not in DELIVERABLE:
        raise NotApproved("Only approved predictions can be published: approve it first")
    publication = _find_publication(prediction.id)
    if publication is None:
        publication = PredictionPublication(
            id=new_id(),
            owner_id=prediction.owner_id,
            organization_id=prediction.organization_id,
            prediction_id=prediction.id,
        )
        token = derive_token(secrets[0], publication.id)
        publication.token_hash = hash_token(token)
        current_session().add(publication)
        current_session().flush()
        emit_prediction_event("prediction.published", prediction)
    else:
        token = _find_token(publication, secrets)
        if publication.status in (PublicationStatus.COMPLETED, PublicationStatus.FAILED):
            publication.status, publication.attempts = PublicationStatus.PENDING, 0
            publication.requested_at = utc_now()
    current_session().flush()
    return publication, token


def unpublish_prediction(prediction: Prediction) -> bool:
    """End the publication of a locked prediction; return whether it was published."""
    publication = _find_publication(prediction.id)
    if publication is None:
        return False
    current_session().delete(publication)
    current_session().flush()
    emit_prediction_event("prediction.unpublished", prediction)
    return True


def find_published(token: str, content_hash: str) -> PredictionPublication | None:
    """Return the publication of a token with its prediction and its image, or None if it has ended.

    Those of a suspended organization rest.

    The transaction needs the role of the system: only the token tells which tenant's rows are needed. The
    database compares hashes of tokens, so the time that it takes tells nothing about a token.

    Args:
        token: The token in the URL.
        content_hash: The hash in the URL, which must be that of the image.
    """
    # unscoped: the token grants it
    query = (
        select(PredictionPublication)
        .join(PredictionPublication.prediction)
        .join(Prediction.media)
        .where(
            PredictionPublication.token_hash == hash_token(token),
            MediaResource.content_hash == content_hash,
            Prediction.status.in_(DELIVERABLE),
            ~is_suspended(Prediction.organization_id),
        )
        .options(contains_eager(PredictionPublication.prediction).contains_eager(Prediction.media))
    )
    return current_session().scalars(query).one_or_none()


def derive_token(secret: str, publication_id: UUID) -> str:
    """Return the token of a publication. Never change how: the URLs on the pages of shops contain it."""
    key = hashlib.sha256(b"sartiq published image\0" + secret.encode()).digest()
    digest = hmac.new(key, publication_id.bytes, hashlib.sha256).digest()
    return urlsafe_b64encode(digest[:_TOKEN_BYTES]).rstrip(b"=").decode()


def hash_token(token: str) -> str:
    """Return the hash that is stored instead of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _find_publication(prediction_id: UUID) -> PredictionPublication | None:
    # unscoped: the publication of a prediction that was loaded for the caller
    query = select(PredictionPublication).where(PredictionPublication.prediction_id == prediction_id)
    return current_session().scalars(query.with_for_update()).one_or_none()


def _find_token(publication: PredictionPublication, secrets: tuple[str, ...]) -> str:
    """Return the token of a publication; a new one if no present secret derives the one that it had."""
    for secret in secrets:
        token = derive_token(secret, publication.id)
        # compared: hashes of the server's own tokens; no client sends either
        if hash_token(token) == publication.token_hash:
            return token
    token = derive_token(secrets[0], publication.id)
    publication.token_hash = hash_token(token)
    return token
