"""Variants: resized and converted copies of stored images, created on first request and cached.

A variant is stored in the folder of its original, so that both are deleted together. Concurrent requests for
the same variant create it once, and a variant is never wider than its original.
"""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from studio.media.images import convert_image
from studio.media.memory_gate import load_slot
from studio.media.storage import Storage, media_key, variant_key
from studio.media.stored_image import CONTENT_TYPES

EXTENSIONS = {"webp": "webp", "jpeg": "jpg", "png": "png", "avif": "avif"}
# Clients can request 4,096 widths in four formats. Only the newest variants of each image are cached, so that
# the disk cannot be filled.
MAX_VARIANTS = 48

# Part of the ETag: variants that were made with other encoder options (`conversion`) must have another tag.
_ENCODER_VERSION = "1"
_locks = [threading.Lock() for _ in range(64)]


@dataclass(frozen=True)
class ServedFile:
    """A file to send, with its media type and the value of its ETag."""

    path: Path
    content_type: str
    tag: str


@dataclass(frozen=True)
class OriginalImage:
    """The columns of a stored image that its variants depend on."""

    resource_id: UUID
    extension: str
    width: int
    content_hash: str


def get_variant(
    storage: Storage, original: OriginalImage, width: int | None = None, type_: str | None = None
) -> ServedFile:
    """Return the original, or a variant in another width or format.

    Args:
        width: Maximum width in pixels; a larger width than the original's returns the original width.
        type_: `webp`, `jpeg`, `png` or `avif`; the format of the original by default.

    Raises:
        NotFound: The original's file does not exist.
    """
    extension = EXTENSIONS[type_] if type_ else original.extension
    width = min(width or original.width, original.width)
    if width == original.width and extension == original.extension:
        path = storage.path(media_key(original.resource_id, extension))
        return ServedFile(path, CONTENT_TYPES[extension], original.content_hash)
    key = variant_key(original.resource_id, width, extension)
    with _locks[hash(key) % len(_locks)]:
        if not storage.exists(key):
            _evict_old_variants(storage, original.resource_id)
            with load_slot():
                source = storage.read(media_key(original.resource_id, original.extension))
                copy = convert_image(source, width, extension)
            storage.write(key, copy)
    tag = hashlib.sha256(
        f"{original.content_hash}/{width}/{extension}/{_ENCODER_VERSION}".encode()
    ).hexdigest()
    return ServedFile(storage.path(key), CONTENT_TYPES[extension], tag)


def _evict_old_variants(storage: Storage, resource_id: UUID) -> None:
    """Delete the oldest variants so that there is room for one more."""
    oldest_first = sorted(
        storage.list_files(f"media/{resource_id}/variants"), key=lambda file: file.modified_at
    )
    for file in oldest_first[: max(0, len(oldest_first) - MAX_VARIANTS + 1)]:
        storage.delete(file.key)
