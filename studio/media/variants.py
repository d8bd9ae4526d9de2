"""Smaller and converted copies of stored pictures, made when first asked for and kept beside the original.

A copy is made once, however many ask for it at the same moment, and never larger than its original.
"""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from studio.media.memory_gate import load_slot
from studio.media.storage import Storage, media_key, variant_key
from studio.media.stored_image import CONTENT_TYPES

EXTENSIONS = {"webp": "webp", "jpeg": "jpg", "png": "png", "avif": "avif"}
# A client may ask for 4,096 widths in four formats: the disk keeps the latest of them for each picture.
MAX_VARIANTS = 48

# In the ETag, so that copies made by other encoder settings (`converting.py`) are not taken for these.
_ENCODER = "1"
_locks = [threading.Lock() for _ in range(64)]


@dataclass(frozen=True)
class ServedFile:
    """A file to send with its media type and the value of its entity tag."""

    path: Path
    content_type: str
    tag: str


@dataclass(frozen=True)
class OriginalImage:
    """The stored picture that copies are made from."""

    resource_id: UUID
    extension: str
    width: int
    content_hash: str


def get_variant(
    storage: Storage, original: OriginalImage, width: int | None = None, type_: str | None = None
) -> ServedFile:
    """The original, or a copy at most `width` pixels wide in the format asked for; NotFound without a file.

    `type_` is webp, jpeg, png or avif.
    """
    extension = EXTENSIONS[type_] if type_ else original.extension
    width = min(width or original.width, original.width)
    if width == original.width and extension == original.extension:
        path = storage.path(media_key(original.resource_id, extension))
        return ServedFile(path, CONTENT_TYPES[extension], original.content_hash)
    key = variant_key(original.resource_id, width, extension)
    with _locks[hash(key) % len(_locks)]:
        if not storage.exists(key):
            # Here, because who only hands out copies needs no Pillow.
            from studio.media import conversion

            _evict_old_variants(storage, original.resource_id)
            with load_slot():
                source = storage.read(media_key(original.resource_id, original.extension))
                copy = conversion.convert_image(source, width, extension)
            storage.write(key, copy)
    tag = hashlib.sha256(f"{original.content_hash}/{width}/{extension}/{_ENCODER}".encode()).hexdigest()
    return ServedFile(storage.path(key), CONTENT_TYPES[extension], tag)


def _evict_old_variants(storage: Storage, resource_id: UUID) -> None:
    kept = sorted(storage.list_files(f"media/{resource_id}/variants"), key=lambda file: file.modified_at)
    for file in kept[: max(0, len(kept) - MAX_VARIANTS + 1)]:
        storage.delete(file.key)
