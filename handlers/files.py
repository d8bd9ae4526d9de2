"""Files: the bytes of stored pictures, as they are, smaller, or in another format."""

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
    """The picture behind an address, no wider than asked for and in the format asked for."""
    if not is_file_name(file_name):
        raise NotFound
    return image_response(get_media(resource_id), width, type_)


def image_response(media: MediaResource, width: int | None = None, format_: str | None = None) -> ApiResponse:
    """A stored picture as an answer: every address that serves one answers with these headers."""
    original = OriginalImage(media.id, media.extension, media.width, media.content_hash)
    served = get_variant(current_storage(), original, width, format_)
    return file_response(
        served.path,
        served.content_type,
        served.tag,
        Cache_Control="private, no-cache",
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX_CSP,
    )
