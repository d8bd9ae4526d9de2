"""Variants: resized and converted copies of stored images, made once and cached.

A variant is stored in the folder of its original, so that both are deleted together. It has one of the widths
of `LADDER` or the width of its original, so an image has at most 40 variants. `ladder` makes those in the
stored format when an image is stored; the others are made when a client requests them.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from db.errors import NotFound
from studio.infrastructure.storage import Storage, media_folder, media_key, variant_key
from studio.media.images import convert_image, open_scaler
from studio.media.stored_image import CONTENT_TYPES

EXTENSIONS = {"webp": "webp", "jpeg": "jpg", "png": "png", "avif": "avif", "gif": "gif"}
LADDER = (64, 128, 256, 480, 960, 1440, 1920, 2880, 4096)
"""The widths of variants. The contract lists them, too."""

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


@dataclass(frozen=True)
class Variant:
    """A copy of an image in another width or format."""

    original: OriginalImage
    width: int
    extension: str

    @property
    def key(self) -> str:
        """The storage key."""
        return variant_key(self.original.resource_id, self.width, self.extension)


class VariantMissing(Exception):
    """The variant must be made first: see `make_variant`. It takes too long for a transaction."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant.key)
        self.variant = variant


def get_variant(
    storage: Storage, original: OriginalImage, width: int | None = None, type_: str | None = None
) -> ServedFile:
    """Return the original, or a variant in another width or format.

    Args:
        width: Width in pixels, at most 4,096. The variant has the next larger width of `LADDER`, but is never
            wider than the original.
        type_: `webp`, `jpeg`, `png` or `avif`; the format of the original by default.

    Raises:
        VariantMissing: The variant has not been made yet.
        NotFound: The original's file does not exist.
    """
    extension = EXTENSIONS[type_] if type_ else original.extension
    width = find_width(width or original.width, original.width)
    if width == original.width and extension == original.extension:
        path = storage.path(media_key(original.resource_id, extension))
        return ServedFile(path, CONTENT_TYPES[extension], original.content_hash)
    variant = Variant(original, width, extension)
    if not storage.exists(variant.key):
        raise VariantMissing(variant)
    _require_original(storage, original)
    tag = hashlib.sha256(
        f"{original.content_hash}/{width}/{extension}/{_ENCODER_VERSION}".encode()
    ).hexdigest()
    return ServedFile(storage.path(variant.key), CONTENT_TYPES[extension], tag)


def find_width(requested: int, original: int) -> int:
    """Return the width of the variant for a requested width and the width of the original."""
    return min(next((step for step in LADDER if step >= requested), original), original)


def list_ladder(original: OriginalImage) -> list[Variant]:
    """Return the smaller variants of an image in its own format."""
    return [Variant(original, width, original.extension) for width in LADDER if width < original.width]


def make_variants(
    storage: Storage, original: OriginalImage, variants: Sequence[Variant], may_continue: Callable[[], bool]
) -> bool:
    """Make those of an image's variants that do not exist, in the given order.

    The caller holds a slot of `memory_gate`.

    Args:
        storage: The storage of the image.
        original: The image.
        variants: Variants of the image.
        may_continue: Called after each variant. If it returns False, the work ends.

    Returns:
        Whether all variants exist.

    Raises:
        NotFound: The original's file does not exist.
    """
    missing = [variant for variant in variants if not storage.exists(variant.key)]
    if not missing:
        return True
    with open_scaler(storage.read(media_key(original.resource_id, original.extension))) as scaler:
        for variant in missing:
            with _locks[hash(variant.key) % len(_locks)]:
                if not storage.exists(variant.key):
                    _store(storage, variant, scaler.convert(variant.width, variant.extension))
            if variant is not missing[-1] and not may_continue():
                return False
    return True


def make_variant(storage: Storage, variant: Variant) -> None:
    """Make and store a variant, unless it exists. The caller holds a slot of `memory_gate`.

    Raises:
        NotFound: The original's file does not exist.
    """
    original = variant.original
    with _locks[hash(variant.key) % len(_locks)]:
        if not storage.exists(variant.key):
            source = storage.read(media_key(original.resource_id, original.extension))
            _store(storage, variant, convert_image(source, variant.width, variant.extension))


def _store(storage: Storage, variant: Variant, data: bytes) -> None:
    storage.write(variant.key, data)
    try:
        _require_original(storage, variant.original)
    except NotFound:
        # Deleted meanwhile: the variant would stay until garbage collection finds it.
        storage.delete_folder(media_folder(variant.original.resource_id))
        raise


def _require_original(storage: Storage, original: OriginalImage) -> None:
    if not storage.exists(media_key(original.resource_id, original.extension)):
        raise NotFound
