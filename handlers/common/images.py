"""Images of a request body: uploads, fetched URLs and URLs of stored images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from flask import current_app

from db.base import Owned
from db.models.media import MediaResource
from handlers.common.context import current_settings
from studio.media.fetching import FetchedImage
from studio.media.ingest import ingest_upload, resolve_file_url
from studio.media.storage import Storage
from studio.media.stored_image import StoredImage


def resolve_images(row: Owned, body: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """The body with each picture's address, `cover_image="cover_media"`, replaced by the picture itself.

    TargetNotAllowed, NotFound and ScopeMismatch as `resolve_file_url`.
    """
    changes = {name: value for name, value in body.items() if name not in names}
    for name, attribute in names.items():
        if name in body:
            changes[attribute] = resolve_image(body[name], row.organization_id)
    return changes


def resolve_image(url: str | None, organization_id: UUID | None) -> MediaResource | None:
    """The picture behind an address, for a row of the scope given; None for none."""
    return None if url is None else accept_image(url, organization_id)


def accept_image(
    source: StoredImage | str, organization_id: UUID | None, public: bool = False
) -> MediaResource:
    """The stored picture that came with the request, was fetched, or is behind an address of ours."""
    picture = source.image if isinstance(source, FetchedImage) else source
    if isinstance(picture, StoredImage):
        return ingest_upload(current_storage(), picture, organization_id, public)
    return resolve_file_url(current_storage(), current_settings().public_url, picture, organization_id)


def current_storage() -> Storage:
    """Where the pictures of the running application are kept."""
    return cast(Storage, current_app.config["STORAGE"])
