"""Files: the bytes of stored pictures, as they are, smaller, or in another format."""

from __future__ import annotations

from uuid import UUID

from db.errors import NotFound
from db.models.media import MediaResource
from handlers.answers import SANDBOX, Answer, found_file
from handlers.permissions import Permission, requires
from handlers.references import current_storage
from studio.media.ingest import find_media, is_file_name
from studio.media.variants import Original, serve


@requires(Permission.FILES_READ)
def get_file(resource_id: UUID, file_name: str, width: int | None = None, type_: str | None = None) -> Answer:
    """The picture behind an address, no wider than asked for and in the format asked for."""
    if not is_file_name(file_name):
        raise NotFound
    return picture_answer(find_media(resource_id), width, type_)


def picture_answer(media: MediaResource, width: int | None = None, format_: str | None = None) -> Answer:
    """A stored picture as an answer: every address that serves one answers with these headers."""
    original = Original(media.id, media.extension, media.width, media.content_hash)
    served = serve(current_storage(), original, width, format_)
    return found_file(
        served.path,
        served.content_type,
        served.tag,
        Cache_Control="private, no-cache",
        X_Content_Type_Options="nosniff",
        Content_Security_Policy=SANDBOX,
    )
