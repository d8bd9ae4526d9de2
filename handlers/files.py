"""Files: stored images, in their original form, smaller, or in another format."""

from __future__ import annotations

from uuid import UUID

from db.errors import NotFound
from db.models.media import MediaResource
from handlers.common.context import current_storage
from handlers.common.permissions import Permission, requires
from handlers.common.responses import SANDBOX_CSP, ApiResponse, file_response
from studio.media.ingest import get_media, is_file_name
from studio.media.variants import OriginalImage, get_variant


@requires(Permission.FILES_READ)
def get_file(
    resource_id: UUID, file_name: str, width: int | None = None, type_: str | None = None
) -> ApiResponse:
    """Return an image, at most `width` pixels wide and in the requested format."""
    if not is_file_name(file_name):
        raise NotFound
    return image_response(get_media(resource_id), width, type_)


def image_response(
    media: MediaResource,
    width: int | None = None,
    format_: str | None = None,
    cache_control: str = "private, no-cache",
) -> ApiResponse:
    """Return the response with a stored image."""
    original = OriginalImage(media.id, media.extension, media.width, media.content_hash)
    variant = get_variant(current_storage(), original, width, format_)
    return file_response(
        variant.path,
        variant.content_type,
        variant.tag,
        Cache_Control=cache_control,
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX_CSP,
    )
